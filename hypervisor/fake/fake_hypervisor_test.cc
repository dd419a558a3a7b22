#include "hypervisor/fake/fake_hypervisor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <stop_token>
#include <thread>

namespace husk::hypervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

VmConfig SmallVm(const std::string& id) {
  return {.id = id,
          .vcpus = 1,
          .maximum_vcpus = 4,
          .memory_bytes = 256ULL << 20,
          .maximum_memory_bytes = 1ULL << 30,
          .user = 100000,
          .group = 100000,
          .state_directory = "/state/" + id};
}

DiskConfig Disk() {
  return {.extents = {{.path = "/disk", .length = 512}}};
}

class FakeHypervisorTest : public ::testing::Test {
 protected:
  FakeMachine machine_;
  FakeHypervisor hypervisor_{machine_};
  const Context context_ = Context::Background().WithTimeout(std::chrono::minutes(1));
};

TEST_F(FakeHypervisorTest, RecordsTheConfig) {
  const auto vm = hypervisor_.Start(context_, SmallVm("a"));
  ASSERT_TRUE(vm.ok()) << vm.status();
  const auto record = machine_.vm("a");
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->maximum_vcpus, 4U);
  EXPECT_EQ(record->state_directory, "/state/a");
  EXPECT_TRUE(record->alive);
  EXPECT_EQ((*vm)->agent_socket(), "/state/a/agent.sock");
  EXPECT_EQ(hypervisor_.Start(context_, SmallVm("a")).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(FakeHypervisorTest, FailsWhereItIsTold) {
  machine_.FailNext(FakeOperation::kStart, absl::InternalError("no QEMU"));
  EXPECT_EQ(hypervisor_.Start(context_, SmallVm("a")).status().message(), "no QEMU");
  EXPECT_THAT(machine_.vms(), IsEmpty());
  const auto vm = hypervisor_.Start(context_, SmallVm("a"));
  ASSERT_TRUE(vm.ok());
  machine_.FailNext(FakeOperation::kAttachDisk, absl::InternalError("no disk"), 1);
  EXPECT_EQ((*vm)->AttachDisk(context_, Disk()).value(), 1U);
  EXPECT_FALSE((*vm)->AttachDisk(context_, Disk()).ok());
  EXPECT_EQ((*vm)->AttachDisk(context_, Disk()).value(), 2U);
  ASSERT_TRUE((*vm)->DetachDisk(context_, 1).ok());
  EXPECT_THAT((*vm)->AttachedDisks(context_).value(), ElementsAre(2U));
}

TEST_F(FakeHypervisorTest, RunsOutOfLuns) {
  const auto vm = hypervisor_.Start(context_, SmallVm("a"));
  ASSERT_TRUE(vm.ok());
  for (std::uint32_t lun = 1; lun <= 255; ++lun) ASSERT_EQ((*vm)->AttachDisk(context_, Disk()).value(), lun);
  EXPECT_EQ((*vm)->AttachDisk(context_, Disk()).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(FakeHypervisorTest, AHeldStartEndsWithItsContext) {
  machine_.HoldStarts();
  std::stop_source stop;
  auto start = std::async(std::launch::async, [&] {
    return hypervisor_.Start(context_.WithStopToken(stop.get_token()), SmallVm("a")).status();
  });
  machine_.WaitForHeldStarts(1);
  stop.request_stop();
  EXPECT_EQ(start.get().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(machine_.alive_count(), 0);
}

TEST_F(FakeHypervisorTest, TellsTheExitOnceOnAThreadOfItsOwn) {
  const auto vm = hypervisor_.Start(context_, SmallVm("a"));
  ASSERT_TRUE(vm.ok());
  std::promise<std::thread::id> ended;
  (*vm)->OnExit([&ended](const VmExit&) { ended.set_value(std::this_thread::get_id()); });
  EXPECT_TRUE(machine_.KillVm("a"));
  EXPECT_FALSE(machine_.KillVm("a"));
  EXPECT_NE(ended.get_future().get(), std::this_thread::get_id());
  EXPECT_FALSE((*vm)->alive());

  std::promise<std::string> again;
  (*vm)->OnExit([&again](const VmExit& exit) { again.set_value(exit.reason); });
  EXPECT_EQ(again.get_future().get(), "killed by signal 9");
}

TEST_F(FakeHypervisorTest, AVmOutlivesItsHypervisor) {
  auto first = std::make_unique<FakeHypervisor>(machine_);
  auto vm = first->Start(context_, SmallVm("a"));
  ASSERT_TRUE(vm.ok());
  ASSERT_TRUE((*vm)->AttachDisk(context_, Disk()).ok());
  const SharedDirectory share{.tag = "t", .directory = UniqueFd(open("/", O_PATH | O_CLOEXEC)), .path = "/"};
  ASSERT_TRUE((*vm)->AttachSharedDirectory(context_, share).ok());
  vm->reset();
  first.reset();

  const auto adopted = hypervisor_.Recover(context_, "/state/a");
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_THAT((*adopted)->AttachedDisks(context_).value(), ElementsAre(1U));
  EXPECT_THAT((*adopted)->SharedDirectories(context_).value(), ElementsAre("t"));
  EXPECT_TRUE((*adopted)->DetachSharedDirectory(context_, "t").ok());
  EXPECT_TRUE((*adopted)->SharedDirectories(context_).value().empty());
  std::promise<std::string> ended;
  (*adopted)->OnExit([&ended](const VmExit& exit) { ended.set_value(exit.reason); });
  ASSERT_TRUE(hypervisor_.Destroy(context_, "/state/a").ok());
  EXPECT_EQ(ended.get_future().get(), "killed by signal 9");
  EXPECT_EQ(hypervisor_.Recover(context_, "/state/a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(hypervisor_.Destroy(context_, "/state/a").ok());
}

}  // namespace
}  // namespace husk::hypervisor
