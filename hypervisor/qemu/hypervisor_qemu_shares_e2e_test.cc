// Shared directories of real QEMUs: the file server of each, and its life beside its VM.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <future>

#include "hypervisor/qemu/e2e_fixture.h"
#include "hypervisor/qemu/process.h"

namespace husk::hypervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

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

}  // namespace
}  // namespace husk::hypervisor
