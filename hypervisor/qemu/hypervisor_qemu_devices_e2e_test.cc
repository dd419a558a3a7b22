// Disks of real QEMUs that come and go, and a guest's console.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <future>

#include "absl/strings/match.h"
#include "agent/common/subprocess.h"
#include "hypervisor/qemu/e2e_fixture.h"

namespace husk::hypervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST_F(HypervisorQemuTest, DisksOfSeveralFilesComeAndGo) {
  std::array<std::string, 3> layers;
  for (std::size_t index = 0; index < layers.size(); ++index) {
    layers[index] = MakeFile(absl::StrCat("layer", index), "x", (index + 1) * kMiB);
  }
  const DiskConfig image{.extents = {{layers[0], kMiB}, {layers[1], kMiB}, {layers[2], 3 * kMiB}}};
  auto config = Config("a");
  const std::string directory = config.state_directory;
  auto vm = MustStart(std::move(config));
  const auto neighbour = MustStart(Config("b"));
  ASSERT_TRUE(vm != nullptr && neighbour != nullptr);
  // Both VMs share the files.
  ASSERT_EQ(vm->AttachDisk(context_, image).value(), 1U);
  ASSERT_EQ(neighbour->AttachDisk(context_, image).value(), 1U);
  ASSERT_EQ(vm->AttachDisk(context_, {.extents = {{layers[0], 512}}}).value(), 2U);
  const std::string data = MakeFile("data", "", kMiB);
  ASSERT_EQ(vm->AttachDisk(context_, {.extents = {{data, kMiB}}, .read_only = false}).value(), 3U);
  vm.reset();

  std::map<std::string, nlohmann::json> inserted;
  for (const auto& device : Query(directory, "query-block")) {
    if (device.contains("inserted")) inserted[device["inserted"]["node-name"]] = device["inserted"];
  }
  EXPECT_EQ(inserted["lun1"]["image"]["virtual-size"], 5 * kMiB);
  EXPECT_EQ(inserted["lun1"]["ro"], true);
  EXPECT_EQ(inserted["lun2"]["image"]["virtual-size"], 512);
  EXPECT_EQ(inserted["lun3"]["ro"], false);

  auto adopted = hypervisor_->Recover(context_, directory);
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_THAT((*adopted)->AttachedDisks(context_).value(), ElementsAre(1U, 2U, 3U));
  for (const std::uint32_t lun : {1U, 2U, 3U, 77U}) {
    const Status status = (*adopted)->DetachDisk(context_, lun);
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_THAT((*adopted)->AttachedDisks(context_).value(), IsEmpty());
  const pid_t pid = PidOf(**adopted);
  for (const auto& entry : fs::directory_iterator(absl::StrCat("/proc/", pid, "/fd"))) {
    EXPECT_THAT(LinkOf(entry.path()), Not(HasSubstr("layer"))) << "a file is still open";
  }
}

TEST_F(HypervisorQemuTest, ADiskThatCannotBeAttachedLeavesNothing) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  const std::string layer = MakeFile("layer", "x", kMiB);
  EXPECT_TRUE(absl::IsNotFound(vm->AttachDisk(context_, {.extents = {{root_ + "/none", kMiB}}}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(vm->AttachDisk(context_, {.extents = {{layer, 2 * kMiB}}}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(vm->AttachDisk(context_, {.extents = {{"/dev/null", kMiB}}}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(vm->DetachDisk(context_, 0)));
  // QEMU's lock on a writable file refuses the second VM's, after descriptors have been passed.
  const std::string data = MakeFile("data", "", kMiB);
  const DiskConfig writable{.extents = {{data, kMiB}}, .read_only = false};
  ASSERT_TRUE(vm->AttachDisk(context_, writable).ok());
  EXPECT_THAT(std::string(vm->AttachDisk(context_, writable).status().message()), HasSubstr("lock"));
  EXPECT_THAT(vm->AttachedDisks(context_).value(), ElementsAre(1U));
  vm.reset();
  int sets = 0;
  for (const auto& set : Query(directory, "query-fdsets")) {
    for (const auto& fd : set["fds"]) sets += fd.value("opaque", "") == "lun2" ? 1 : 0;
  }
  EXPECT_EQ(sets, 0);
}

TEST_F(HypervisorQemuTest, EveryLunCanBeUsed) {
  const auto vm = MustStart(Config("a"));
  ASSERT_NE(vm, nullptr);
  const DiskConfig disk{.extents = {{MakeFile("layer", "x", kMiB), kMiB}}};
  for (std::uint32_t lun = 1; lun <= 255; ++lun) {
    const auto attached = vm->AttachDisk(context_, disk);
    ASSERT_TRUE(attached.ok()) << attached.status();
    ASSERT_EQ(*attached, lun);
  }
  EXPECT_TRUE(absl::IsResourceExhausted(vm->AttachDisk(context_, disk).status()));
  ASSERT_TRUE(vm->DetachDisk(context_, 200).ok());
  EXPECT_EQ(vm->AttachDisk(context_, disk).value(), 200U);
}

// With a guest: any kernel that the host has, and an initrd of a static busybox.
class GuestTest : public HypervisorQemuTest {
 protected:
  static std::string HostKernel() {
    if (const char* kernel = std::getenv("HUSK_TEST_KERNEL"); kernel != nullptr) return kernel;  // NOLINT: one thread
    std::error_code error;
    for (const auto& entry : fs::directory_iterator("/boot", error)) {
      if (absl::StartsWith(entry.path().filename().string(), "vmlinuz-")) return entry.path();
    }
    return "";
  }

  // Boots until the console shows `text`; its whole tail.
  std::string ConsoleUntil(Vm& vm, const std::string& text) {
    std::string console;
    while (context_.Check().ok() && vm.alive()) {
      console = vm.ConsoleTail(context_);
      if (absl::StrContains(console, text)) break;
      EXPECT_TRUE(SleepFor(context_, std::chrono::milliseconds(50)).ok());
    }
    return console;
  }

  std::string MakeInitrd(const std::string& script) {
    fs::create_directories(root_ + "/initrd/bin");
    fs::create_directories(root_ + "/initrd/proc");
    fs::copy("/bin/busybox", root_ + "/initrd/bin/busybox");
    std::ofstream(root_ + "/initrd/init") << "#!/bin/busybox sh\n" << script;
    fs::permissions(root_ + "/initrd/init", fs::perms::owner_all);
    const auto packed = RunSubprocess(
        context_,
        {.argv = {"/bin/sh", "-c", "cd '" + root_ + "/initrd' && find . | cpio -o -H newc --quiet > ../initrd.cpio"}});
    EXPECT_TRUE(packed.ok() && packed->exit_code == 0);
    return root_ + "/initrd.cpio";
  }
};

TEST_F(GuestTest, ShowsItsConsoleAndTellsOfItsEnd) {
  const std::string kernel = HostKernel();
  if (kernel.empty() || !fs::exists("/bin/busybox")) GTEST_SKIP() << "needs a kernel and a static busybox";
  // The kernel's directory may hold a cmdline file, which must be used.
  fs::create_directories(root_ + "/guest");
  fs::copy(kernel, root_ + "/guest/kernel");
  fs::permissions(root_ + "/guest/kernel", fs::perms::others_read, fs::perm_options::add);
  std::ofstream(root_ + "/guest/cmdline") << "husk.test=42\n";
  auto options = Options();
  options.kernel = root_ + "/guest/kernel";
  options.initrd = MakeInitrd(
      "/bin/busybox mount -t proc proc /proc\n"
      "echo; echo \"line=$(/bin/busybox cat /proc/cmdline)\"; echo guest-is-up\n"
      "/bin/busybox sleep 2; /bin/busybox reboot -f\n");
  hypervisor_ = NewHypervisor(options);
  auto config = Config("a");
  config.memory_bytes = 256 * kMiB;
  const auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  std::promise<std::string> ended;
  vm->OnExit([&ended](const VmExit& exit) { ended.set_value(exit.reason); });
  const std::string console = ConsoleUntil(*vm, "guest-is-up");
  EXPECT_THAT(console, HasSubstr("guest-is-up"));
  EXPECT_THAT(console, HasSubstr("husk.test=42"));
  // -no-reboot: a guest's reset is the end of its VM.
  EXPECT_EQ(ended.get_future().get(), "the VM shut down: guest-reset");
  EXPECT_THAT(vm->ConsoleTail(context_), HasSubstr("guest-is-up"));
}

}  // namespace
}  // namespace husk::hypervisor
