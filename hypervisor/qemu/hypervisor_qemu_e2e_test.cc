// Real QEMUs under TCG. Most tests boot no kernel: a QEMU at its firmware's prompt is a VM like any other to what is
// tested here.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "agent/common/subprocess.h"
#include "hypervisor/qemu/process.h"
#include "hypervisor/qemu/qemu_hypervisor.h"
#include "hypervisor/qemu/qmp_client.h"
#include "hypervisor/qemu/state_files.h"

namespace husk::hypervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

namespace fs = std::filesystem;

constexpr uid_t kUser = 200'123;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// "CapEff" -> "0000000000000000", of /proc/PID/status.
std::map<std::string, std::string> StatusOf(pid_t pid) {
  std::map<std::string, std::string> members;
  std::istringstream lines(ReadText(absl::StrCat("/proc/", pid, "/status")));
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(":\t");
    if (colon != std::string::npos) members[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return members;
}

std::string LinkOf(const std::string& path) {
  std::error_code error;
  return fs::read_symlink(path, error).string();
}

class HypervisorQemuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    std::string pattern = (fs::temp_directory_path() / "husk-qemu-e2e-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    hypervisor_ = NewHypervisor();
  }

  void TearDown() override {
    for (const auto& directory : state_directories_) {
      EXPECT_TRUE(NewHypervisor()->Destroy(context_, directory).ok());
    }
    hypervisor_.reset();
    fs::remove_all(root_);
  }

  static QemuOptions Options() { return {.launcher_binary = HUSK_VM_LAUNCHER, .accelerator = Accelerator::kTcg}; }

  static std::unique_ptr<Hypervisor> NewHypervisor(const QemuOptions& options = Options()) {
    auto hypervisor = NewQemuHypervisor(options);
    EXPECT_TRUE(hypervisor.ok()) << hypervisor.status();
    return std::move(*hypervisor);
  }

  std::string MakeFile(const std::string& name, const std::string& text, std::uint64_t length = 0) {
    const std::string path = root_ + "/" + name;
    std::ofstream(path) << text;
    if (length != 0) fs::resize_file(path, length);
    return path;
  }

  VmConfig Config(const std::string& id, const std::string& below = "") {
    const std::string directory = root_ + below + "/" + id;
    fs::create_directories(directory);
    fs::permissions(directory, fs::perms::owner_all);
    state_directories_.push_back(directory);
    return {.id = id,
            .vcpus = 1,
            .maximum_vcpus = 4,
            .memory_bytes = 128 * kMiB,
            .maximum_memory_bytes = 1024 * kMiB,
            .user = kUser,
            .group = kUser,
            .state_directory = directory,
            .scratch = {.extents = {{.path = MakeFile(id + ".scratch", "", 8 * kMiB), .length = 8 * kMiB}},
                        .read_only = false}};
  }

  std::unique_ptr<Vm> MustStart(VmConfig config) {
    auto vm = hypervisor_->Start(context_, std::move(config));
    EXPECT_TRUE(vm.ok()) << vm.status();
    return vm.ok() ? std::move(*vm) : nullptr;
  }

  pid_t PidOf(Vm& vm) {
    const auto information = vm.Information(context_);
    EXPECT_TRUE(information.ok()) << information.status();
    return information.ok() ? information->process.pid : 0;
  }

  // One QMP command on a connection of the test's own. The Vm object must be gone: QEMU talks to one client at a time.
  nlohmann::json Query(const std::string& state_directory, const std::string& command,
                       const nlohmann::json& arguments = nullptr) {
    IoThread io_thread;
    const auto directory = OpenStateDirectory(state_directory);
    auto socket = ConnectIn(context_, directory->get(), kQmpSocket);
    EXPECT_TRUE(socket.ok()) << socket.status();
    const auto qmp = QmpClient::Connect(context_, io_thread, std::move(*socket), nullptr);
    EXPECT_TRUE(qmp.ok()) << qmp.status();
    auto reply = (*qmp)->Execute(context_, command, arguments);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *reply : nlohmann::json();
  }

  const Context context_ = Context::Background("e2e").WithTimeout(std::chrono::minutes(4));
  std::string root_;
  std::vector<std::string> state_directories_;
  std::unique_ptr<Hypervisor> hypervisor_;
};

TEST_F(HypervisorQemuTest, StartsAndKills) {
  EXPECT_THAT(hypervisor_->Version(context_).value(), ::testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  auto config = Config("a");
  const std::string directory = config.state_directory;
  const auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  EXPECT_TRUE(vm->alive());
  const auto information = vm->Information(context_);
  ASSERT_TRUE(information.ok()) << information.status();
  EXPECT_EQ(information->vcpus, 1U);
  EXPECT_EQ(information->memory_bytes, 128 * kMiB);
  EXPECT_EQ(information->accelerator, Accelerator::kTcg);
  EXPECT_EQ(information->command_line.at(0), "/usr/bin/qemu-system-x86_64");
  EXPECT_TRUE(OpenProcess(information->process).ok());
  EXPECT_TRUE(fs::is_socket(vm->agent_socket()));

  std::promise<std::string> ended;
  vm->OnExit([&ended](const VmExit& exit) { ended.set_value(exit.reason); });
  ASSERT_TRUE(vm->Kill(context_).ok());
  EXPECT_EQ(ended.get_future().get(), "killed by signal 9 (Killed)");
  EXPECT_FALSE(vm->alive());
  // Reaped, not just dead.
  EXPECT_FALSE(fs::exists(absl::StrCat("/proc/", information->process.pid)));
  EXPECT_TRUE(vm->Kill(context_).ok());
  EXPECT_TRUE(absl::IsUnavailable(vm->AttachedDisks(context_).status()));
  EXPECT_TRUE(absl::IsNotFound(hypervisor_->Recover(context_, directory).status()));
}

TEST_F(HypervisorQemuTest, HasSlotsForHotplugFromTheStart) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  MustStart(std::move(config)).reset();
  const auto memory = Query(directory, "query-memory-devices");
  ASSERT_EQ(memory.size(), 1U);
  EXPECT_EQ(memory[0]["type"], "virtio-mem");
  EXPECT_EQ(memory[0]["data"]["id"], "memory");
  EXPECT_EQ(memory[0]["data"]["size"], 0);
  EXPECT_EQ(memory[0]["data"]["max-size"], 896 * kMiB);
  const auto cpus = Query(directory, "query-hotpluggable-cpus");
  ASSERT_EQ(cpus.size(), 4U);
  int present = 0;
  for (const auto& cpu : cpus) present += cpu.contains("qom-path") ? 1 : 0;
  EXPECT_EQ(present, 1);
}

// VMM-03
TEST_F(HypervisorQemuTest, QemuHasNoRightsAndNothingOfTheHost) {
  // A descriptor that some library leaks must not reach QEMU.
  const UniqueFd leaked(open("/etc/passwd", O_RDONLY));
  const auto vm = MustStart(Config("a"));
  ASSERT_NE(vm, nullptr);
  const pid_t pid = PidOf(*vm);
  auto status = StatusOf(pid);
  const std::string user = absl::StrCat(kUser, "\t", kUser, "\t", kUser, "\t", kUser);
  EXPECT_EQ(status["Uid"], user);
  EXPECT_EQ(status["Gid"], user);
  EXPECT_EQ(status["Groups"], " ");
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(status[set], "0000000000000000") << set;
  }
  EXPECT_EQ(status["NoNewPrivs"], "1");
  EXPECT_EQ(status["Seccomp"], "2");

  const std::string proc = absl::StrCat("/proc/", pid);
  for (const char* kind : {"net", "mnt", "ipc", "uts"}) {
    EXPECT_NE(LinkOf(proc + "/ns/" + kind), LinkOf(std::string("/proc/self/ns/") + kind)) << kind;
  }
  EXPECT_EQ(getsid(pid), pid);
  EXPECT_THAT(ReadText(proc + "/limits"), ::testing::ContainsRegex("Max core file size +0 +0"));
  EXPECT_EQ(ReadText(proc + "/environ"), "");

  for (const auto& entry : fs::directory_iterator(proc + "/fd")) {
    const std::string target = LinkOf(entry.path());
    const int number = std::stoi(entry.path().filename());
    const bool expected = absl::StartsWith(target, "socket:[") || absl::StartsWith(target, "anon_inode:") ||
                          absl::StartsWith(target, "/memfd:") || absl::StartsWith(target, "/dev/null") ||
                          absl::EndsWith(target, "/a.scratch") || absl::EndsWith(target, "/qemu.log");
    EXPECT_TRUE(expected) << number << " is " << target;
  }

  std::vector<std::string> top;
  for (const auto& entry : fs::directory_iterator(proc + "/root")) top.push_back(entry.path().filename());
  EXPECT_THAT(top, ::testing::IsSubsetOf({"usr", "lib", "lib64", "etc", "dev"}));
  top.clear();
  for (const auto& entry : fs::directory_iterator(proc + "/root/etc")) top.push_back(entry.path().filename());
  EXPECT_THAT(top, ElementsAre("ld.so.cache"));
  top.clear();
  for (const auto& entry : fs::directory_iterator(proc + "/root/dev")) top.push_back(entry.path().filename());
  EXPECT_THAT(top, ElementsAre("null"));
  std::istringstream mounts(ReadText(proc + "/mountinfo"));
  int count = 0;
  for (std::string line; std::getline(mounts, line); ++count) EXPECT_THAT(line, HasSubstr(" ro,")) << line;
  EXPECT_GT(count, 10);
}

TEST_F(HypervisorQemuTest, LivesInTheGivenNetworkNamespaceAndCgroups) {
  // A namespace that a file keeps, as CNI's.
  const std::string netns = MakeFile("netns", "");
  std::thread([&netns] {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0);
    ASSERT_EQ(mount("/proc/thread-self/ns/net", netns.c_str(), nullptr, MS_BIND, nullptr), 0);
  }).join();
  struct stat expected{};
  ASSERT_EQ(stat(netns.c_str(), &expected), 0);

  std::string cgroup;
  for (const char* hierarchy : {"/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"}) {
    if (cgroup.empty() && fs::exists(std::string(hierarchy) + "/cgroup.procs")) {
      cgroup = absl::StrCat(hierarchy, "/husk-qemu-e2e-", getpid());
    }
  }
  ASSERT_FALSE(cgroup.empty());
  ASSERT_TRUE(fs::create_directory(cgroup));

  auto config = Config("a");
  config.network_namespace = netns;
  config.cgroup_procs = {cgroup + "/cgroup.procs"};
  const auto vm = MustStart(std::move(config));
  if (vm != nullptr) {
    const pid_t pid = PidOf(*vm);
    struct stat actual{};
    EXPECT_EQ(stat(absl::StrCat("/proc/", pid, "/ns/net").c_str(), &actual), 0);
    EXPECT_EQ(actual.st_ino, expected.st_ino);
    EXPECT_EQ(ReadText(cgroup + "/cgroup.procs"), absl::StrCat(pid, "\n"));
    EXPECT_TRUE(vm->Kill(context_).ok());
  }
  EXPECT_EQ(rmdir(cgroup.c_str()), 0);
  EXPECT_EQ(umount2(netns.c_str(), MNT_DETACH), 0);
}

TEST_F(HypervisorQemuTest, TakesATap) {
  ifreq request{};
  UniqueFd tap;
  std::thread([&] {
    // In a namespace of its own: the tap is reached through its descriptor alone.
    ASSERT_EQ(unshare(CLONE_NEWNET), 0);
    tap.Reset(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(tap.valid());
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    std::strncpy(request.ifr_name, "tap0", IFNAMSIZ - 1);
    ASSERT_EQ(ioctl(tap.get(), TUNSETIFF, &request), 0);
  }).join();
  auto config = Config("a");
  const std::string directory = config.state_directory;
  config.network_devices.push_back({.tap = std::move(tap), .mac_address = "02:00:00:00:00:07"});
  MustStart(std::move(config)).reset();
  const auto filter = Query(directory, "query-rx-filter", {{"name", "nic0"}});
  ASSERT_EQ(filter.size(), 1U);
  EXPECT_EQ(filter[0]["main-mac"], "02:00:00:00:00:07");
}

TEST_F(HypervisorQemuTest, AnEarlyDeathIsToldInItsOwnWords) {
  // A guest kernel that QEMU cannot load.
  auto options = Options();
  options.kernel = MakeFile("kernel", "this is no kernel");
  const auto hypervisor = NewHypervisor(options);
  auto config = Config("a");
  const std::string directory = config.state_directory;
  const auto vm = hypervisor->Start(context_, std::move(config));
  ASSERT_FALSE(vm.ok());
  EXPECT_THAT(std::string(vm.status().message()), HasSubstr("QEMU ended while starting: "));
  EXPECT_THAT(std::string(vm.status().message()), HasSubstr("kernel"));
  EXPECT_TRUE(fs::is_empty(directory));
}

TEST_F(HypervisorQemuTest, TheLaunchersFailureIsTold) {
  auto config = Config("a");
  config.network_namespace = "/etc/passwd";
  const auto vm = hypervisor_->Start(context_, std::move(config));
  ASSERT_FALSE(vm.ok());
  EXPECT_THAT(std::string(vm.status().message()), HasSubstr("enter the pod's network namespace: Invalid argument"));
}

TEST_F(HypervisorQemuTest, ACancelledStartLeavesNothing) {
  std::stop_source stop;
  auto config = Config("a");
  const std::string directory = config.state_directory;
  stop.request_stop();
  EXPECT_TRUE(
      absl::IsCancelled(hypervisor_->Start(context_.WithStopToken(stop.get_token()), std::move(config)).status()));
  EXPECT_TRUE(fs::is_empty(directory));
  const auto late = hypervisor_->Start(context_.WithTimeout(std::chrono::milliseconds(20)), Config("b"));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
  EXPECT_TRUE(fs::is_empty(root_ + "/b"));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
}

TEST_F(HypervisorQemuTest, AKilledQemuIsNoticed) {
  const auto vm = MustStart(Config("a"));
  ASSERT_NE(vm, nullptr);
  std::promise<std::string> ended;
  vm->OnExit([&ended](const VmExit& exit) { ended.set_value(exit.reason); });
  kill(PidOf(*vm), SIGKILL);
  EXPECT_EQ(ended.get_future().get(), "killed by signal 9 (Killed)");
  EXPECT_FALSE(vm->alive());
}

TEST_F(HypervisorQemuTest, AnotherHypervisorAdoptsIt) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  const std::string layer = MakeFile("layer", "x", kMiB);
  const DiskConfig disk{.extents = {{.path = layer, .length = kMiB}}};
  ASSERT_EQ(vm->AttachDisk(context_, disk).value(), 1U);
  const pid_t pid = PidOf(*vm);
  vm.reset();
  hypervisor_ = NewHypervisor();

  auto adopted = hypervisor_->Recover(context_, directory);
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_EQ(PidOf(**adopted), pid);
  EXPECT_THAT((*adopted)->AttachedDisks(context_).value(), ElementsAre(1U));
  EXPECT_EQ((*adopted)->AttachDisk(context_, disk).value(), 2U);
  EXPECT_TRUE((*adopted)->DetachDisk(context_, 1).ok());
  EXPECT_THAT((*adopted)->AttachedDisks(context_).value(), ElementsAre(2U));
  auto again = Config("a");
  EXPECT_TRUE(absl::IsAlreadyExists(hypervisor_->Start(context_, std::move(again)).status()));

  std::promise<std::string> ended;
  (*adopted)->OnExit([&ended](const VmExit& exit) { ended.set_value(exit.reason); });
  ASSERT_TRUE(hypervisor_->Destroy(context_, directory).ok());
  ended.get_future().get();
  EXPECT_TRUE(fs::is_empty(directory));
  EXPECT_TRUE(hypervisor_->Destroy(context_, directory).ok());
}

// The parent is killed while the VM runs: the VM goes on, and a process that is not its parent adopts it.
TEST_F(HypervisorQemuTest, OutlivesTheProcessThatStartedIt) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  const pid_t parent = fork();
  ASSERT_GE(parent, 0);
  if (parent == 0) {
    const auto started = NewQemuHypervisor(Options()).value()->Start(context_, std::move(config));
    if (started.ok()) kill(getpid(), SIGKILL);
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(parent, &status, 0), parent);
  ASSERT_TRUE(WIFSIGNALED(status));
  auto vm = hypervisor_->Recover(context_, directory);
  ASSERT_TRUE(vm.ok()) << vm.status();
  std::promise<void> ended;
  (*vm)->OnExit([&ended](const VmExit& /*exit*/) { ended.set_value(); });
  ASSERT_TRUE((*vm)->Kill(context_).ok());
  ended.get_future().get();
}

TEST_F(HypervisorQemuTest, WhatNeverAnswersIsKilledByRecover) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  const pid_t pid = PidOf(*vm);
  vm.reset();
  // What is bound now at QMP's name listens, and says something else.
  const auto state = OpenStateDirectory(directory);
  const auto impostor = ListenIn(state->get(), kQmpSocket);
  ASSERT_TRUE(impostor.ok());
  std::thread garbage([&impostor] {
    const UniqueFd client(accept(impostor->get(), nullptr, nullptr));
    ASSERT_EQ(send(client.get(), "hello\n", 6, MSG_NOSIGNAL), 6);
  });
  EXPECT_TRUE(absl::IsNotFound(hypervisor_->Recover(context_, directory).status()));
  garbage.join();
  EXPECT_FALSE(fs::exists(absl::StrCat("/proc/", pid)));
}

// A pid that is used again, by a process that is not ours: it must live on.
TEST_F(HypervisorQemuTest, NeverKillsAProcessThatOnlyHasItsPid) {
  const auto config = Config("a");
  const pid_t bystander = fork();
  if (bystander == 0) {
    pause();
    _exit(0);
  }
  const auto start_time = ParseStartTime(ReadText(absl::StrCat("/proc/", bystander, "/stat")));
  ASSERT_TRUE(start_time.ok());
  std::ofstream(config.state_directory + "/identity") << "pid=" << bystander << "\nstart_time=" << *start_time - 1
                                                      << "\nboot_id=" << ReadText("/proc/sys/kernel/random/boot_id");
  EXPECT_TRUE(absl::IsNotFound(hypervisor_->Recover(context_, config.state_directory).status()));
  EXPECT_TRUE(hypervisor_->Destroy(context_, config.state_directory).ok());
  EXPECT_EQ(waitpid(bystander, nullptr, WNOHANG), 0);
  kill(bystander, SIGKILL);
  EXPECT_EQ(waitpid(bystander, nullptr, 0), bystander);
}

TEST_F(HypervisorQemuTest, WorksInALongStateDirectory) {
  auto config = Config("a", "/" + std::string(120, 'd'));
  const std::string directory = config.state_directory;
  const auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  const auto state = OpenStateDirectory(directory);
  EXPECT_TRUE(ConnectIn(context_, state->get(), kAgentSocket).ok());
  EXPECT_TRUE(vm->Kill(context_).ok());
}

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
// ---- shared directories ---------------------------------------------------------------------------------------------

class SharedDirectoryTest : public HypervisorQemuTest {
 protected:
  SharedDirectory Share(const std::string& tag) {
    const std::string path = root_ + "/shared-" + tag;
    fs::create_directories(path);
    return {.tag = tag, .directory = UniqueFd(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)), .path = path};
  }
  // Of the server of that share.
  static StatusOr<ProcessIdentity> ServerOf(const std::string& state_directory, const std::string& tag) {
    HUSK_ASSIGN_OR_RETURN(const auto directory, OpenStateDirectory(state_directory + "/share-" + tag));
    HUSK_ASSIGN_OR_RETURN(const auto identity, ReadIdentity(directory.get()));
    return identity.process;
  }
  static bool Lives(const ProcessIdentity& process) { return OpenProcess(process).ok(); }
};

TEST_F(SharedDirectoryTest, IsAdoptedAndEndsWithItsVm) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  const Status shared = vm->AttachSharedDirectory(context_, Share("t"));
  ASSERT_TRUE(shared.ok()) << shared;
  EXPECT_TRUE(vm->AttachSharedDirectory(context_, Share("t")).ok());
  const auto server = ServerOf(directory, "t");
  ASSERT_TRUE(server.ok()) << server.status();
  vm.reset();
  hypervisor_ = NewHypervisor();
  // What a huskd leaves that dies while it makes one.
  fs::create_directory(directory + "/share-half");
  std::ofstream(directory + "/share-half/virtiofsd.log").flush();

  auto adopted = hypervisor_->Recover(context_, directory);
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_THAT((*adopted)->SharedDirectories(context_).value(), ElementsAre("t"));
  EXPECT_FALSE(fs::exists(directory + "/share-half"));
  EXPECT_TRUE(Lives(*server));
  EXPECT_TRUE((*adopted)->AttachSharedDirectory(context_, Share("u")).ok());
  ASSERT_TRUE(hypervisor_->Destroy(context_, directory).ok());
  EXPECT_FALSE(Lives(*server));
  EXPECT_TRUE(fs::is_empty(directory));
}

TEST_F(SharedDirectoryTest, TheEndOfAServerEndsTheVm) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  const auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  ASSERT_TRUE(vm->AttachSharedDirectory(context_, Share("t")).ok());
  std::promise<std::string> ended;
  vm->OnExit([&ended](const VmExit& exit) { ended.set_value(exit.reason); });
  kill(ServerOf(directory, "t")->pid, SIGKILL);
  EXPECT_EQ(ended.get_future().get(),
            absl::StrCat("the file server of ", root_, "/shared-t ended: killed by signal 9 (Killed)"));
}

TEST_F(SharedDirectoryTest, OneThatDiedUnseenEndsTheVmToo) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  ASSERT_TRUE(vm->AttachSharedDirectory(context_, Share("t")).ok());
  const pid_t qemu = PidOf(*vm);
  const auto server = ServerOf(directory, "t");
  vm.reset();
  hypervisor_.reset();
  kill(server->pid, SIGKILL);
  ASSERT_EQ(waitpid(server->pid, nullptr, 0), server->pid);
  hypervisor_ = NewHypervisor();
  const auto recovered = hypervisor_->Recover(context_, directory);
  EXPECT_TRUE(absl::IsNotFound(recovered.status()));
  EXPECT_THAT(std::string(recovered.status().message()), HasSubstr("/shared-t ended while no huskd was running"));
  EXPECT_FALSE(fs::exists(absl::StrCat("/proc/", qemu)));
}

TEST_F(SharedDirectoryTest, WhatCannotBeSharedLeavesNothing) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  const auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  auto bad = Share("t");
  bad.cgroup_procs = {root_ + "/none"};
  EXPECT_TRUE(absl::IsNotFound(vm->AttachSharedDirectory(context_, bad)));
  EXPECT_FALSE(fs::exists(directory + "/share-t"));
  EXPECT_TRUE(absl::IsInvalidArgument(vm->AttachSharedDirectory(context_, Share("no/tag"))));
  // A server that cannot start: the launcher's words.
  auto no_directory = Share("t");
  no_directory.directory = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const Status failed = vm->AttachSharedDirectory(context_, no_directory);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("the file server ended while starting: "));
  EXPECT_FALSE(fs::exists(directory + "/share-t"));
  for (int number = 0; number < 16; ++number) {
    const Status shared = vm->AttachSharedDirectory(context_, Share(absl::StrCat("t", number)));
    ASSERT_TRUE(shared.ok()) << number << ": " << shared;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(vm->AttachSharedDirectory(context_, Share("t16"))));
}

TEST_F(SharedDirectoryTest, AHostWithoutVirtiofsdSaysSo) {
  auto options = Options();
  options.virtiofsd_binary = "/none";
  hypervisor_ = NewHypervisor(options);
  const auto vm = MustStart(Config("a"));
  ASSERT_NE(vm, nullptr);
  const Status shared = vm->AttachSharedDirectory(context_, Share("t"));
  EXPECT_TRUE(absl::IsFailedPrecondition(shared));
  EXPECT_THAT(std::string(shared.message()), HasSubstr("/none"));
}

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
