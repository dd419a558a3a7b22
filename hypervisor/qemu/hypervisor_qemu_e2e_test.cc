// The life of real QEMUs under TCG. Most tests boot no kernel: a QEMU at its firmware's prompt is a VM like any other
// to what is tested here.
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
#include <cstring>
#include <future>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "hypervisor/qemu/e2e_fixture.h"
#include "hypervisor/qemu/process.h"

namespace husk::hypervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(HypervisorQemuTest, StartsAndKills) {
  EXPECT_THAT(hypervisor_->Version(context_).value(), ::testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  auto config = Config("a");
  const std::string directory = config.state_directory;
  const auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  EXPECT_TRUE(vm->alive());
  const auto information = vm->Information(context_);
  ASSERT_TRUE(information.ok()) << information.status();
  EXPECT_EQ(information->vcpus, 4U) << "an emulated one has all that it may have (docs/adr/0118)";
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
  auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  const bool stay = vm->Information(context_)->vcpus_stay;
  vm.reset();
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
  EXPECT_EQ(present, stay ? 4 : 1) << "docs/adr/0118";
}

TEST_F(HypervisorQemuTest, MemoryThatNoGuestTakesIsNotAskedForAnyMore) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  EXPECT_TRUE(vm->SetPluggedMemory(context_, 0).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(vm->SetPluggedMemory(context_, 2 * kMiB)));
  const Status much = vm->SetPluggedMemory(context_, 900 * kMiB);
  EXPECT_TRUE(absl::IsResourceExhausted(much)) << much;
  EXPECT_THAT(std::string(much.message()), HasSubstr("939524096"));
  // Nobody is there to take it.
  const Status silent = vm->SetPluggedMemory(context_.WithTimeout(std::chrono::milliseconds(300)), 128 * kMiB);
  EXPECT_TRUE(absl::IsDeadlineExceeded(silent)) << silent;
  vm.reset();
  const auto memory = Query(directory, "query-memory-devices");
  ASSERT_EQ(memory.size(), 1U);
  EXPECT_EQ(memory[0]["data"]["requested-size"], 0);
}

TEST_F(HypervisorQemuTest, VcpusArePluggedInAndAskedBack) {
  auto config = Config("a");
  const std::string directory = config.state_directory;
  auto vm = MustStart(std::move(config));
  ASSERT_NE(vm, nullptr);
  EXPECT_TRUE(absl::IsInvalidArgument(vm->SetVcpus(context_, 0)));
  const Status much = vm->SetVcpus(context_, 5);
  EXPECT_TRUE(absl::IsResourceExhausted(much)) << much;
  // With KVM they are plugged in.
  const bool stay = vm->Information(context_)->vcpus_stay;
  const std::uint32_t most = stay ? 4 : 3;
  if (!stay) {
    EXPECT_TRUE(vm->SetVcpus(context_, 1).ok());
  }
  for (int repetition = 0; repetition < 2; ++repetition) {
    const Status plugged = vm->SetVcpus(context_, most);
    ASSERT_TRUE(plugged.ok()) << plugged;
  }
  const auto information = vm->Information(context_);
  ASSERT_TRUE(information.ok()) << information.status();
  EXPECT_EQ(information->vcpus, most);
  EXPECT_EQ(information->maximum_vcpus, 4U);
  EXPECT_EQ(information->boot_memory_bytes, 128 * kMiB);
  EXPECT_EQ(information->requested_memory_bytes, 128 * kMiB);
  EXPECT_EQ(information->maximum_memory_bytes, 1024 * kMiB);
  EXPECT_EQ(information->vcpus_stay, information->accelerator == Accelerator::kTcg);
  // Emulated ones stay (docs/adr/0118), and with KVM nobody is there to let one go.
  const Status refused = vm->SetVcpus(context_, 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr(information->vcpus_stay ? "keeps its vCPUs" : "no guest"));
  EXPECT_EQ(vm->Information(context_)->vcpus, most);
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

}  // namespace
}  // namespace husk::hypervisor
