// What another process makes of what one left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "sandbox/store/store.h"
#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class RecoveryTest : public RuntimeFixture {
 protected:
  // Changes the store while no runtime has it.
  template <typename Change>
  void ChangeStore(Change change) {
    auto store = Store::Open(options_.root_directory + "/sandbox.db");
    ASSERT_TRUE(store.ok()) << store.status();
    const Status changed = change(**store);
    ASSERT_TRUE(changed.ok()) << changed;
  }
};

TEST_F(RecoveryTest, AdoptsARunningPod) {
  const std::string pod = RunPod();
  const std::string running = RunContainer(pod, "running");
  const std::string created = CreateContainer(pod, "created");
  const ContainerStatus before = StatusOf(running);
  ASSERT_TRUE(Guest(pod).Write(running, "", agent::v1::STDOUT, "1\nhalf "));
  ASSERT_TRUE(Eventually([&] { return !Log("pod", "running").empty(); }));
  Restart();
  EXPECT_EQ(machine_.alive_count(), 1);
  EXPECT_EQ(StateOf(pod), PodState::kReady);
  EXPECT_EQ(runtime_->GetPod(pod, false)->addresses.at(0), "10.88.0.2");
  EXPECT_EQ(StatusOf(running).state, ContainerState::kRunning);
  EXPECT_EQ(StatusOf(running).started_at, before.started_at);
  EXPECT_EQ(StatusOf(running).log_path, before.log_path);
  EXPECT_EQ(StatusOf(created).state, ContainerState::kCreated);
  EXPECT_EQ(images_.leases(), 2);
  EXPECT_EQ(RunPod(), pod);

  ASSERT_TRUE(Guest(pod).Write(running, "", agent::v1::STDOUT, "a line\n3\n"));
  ASSERT_TRUE(runtime_->StartContainer(context_, created).ok());
  ASSERT_TRUE(runtime_->StopContainer(context_, running, std::chrono::hours(1)).ok());
  EXPECT_EQ(StatusOf(running).exit_code, 130);
  const std::string log = Log("pod", "running");
  EXPECT_THAT(log, HasSubstr("F 1\n"));
  EXPECT_THAT(log, HasSubstr("F half a line\n"));
  EXPECT_THAT(log, HasSubstr("F 3\n"));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 3);
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(RecoveryTest, TellsTrueExitsOfTheMeantime) {
  const std::string pod = RunPod();
  const std::string id = RunContainer(pod);
  const std::string oom = RunContainer(pod, "oom");
  runtime_.reset();
  ASSERT_TRUE(Guest(pod).Write(id, "", agent::v1::STDOUT, "said while nobody listened\n"));
  ASSERT_TRUE(Guest(pod).Exit(id, "", 9));
  ASSERT_TRUE(Guest(pod).Exit(oom, "", 137, true));
  Start();
  EXPECT_EQ(StatusOf(id).state, ContainerState::kExited);
  EXPECT_EQ(StatusOf(id).exit_code, 9);
  EXPECT_EQ(StatusOf(oom).reason, "OOMKilled");
  EXPECT_THAT(Log("pod", "main"), HasSubstr("said while nobody listened"));
  // What is recorded is told again, whatever becomes of the guest.
  machine_.Reboot();
  Restart();
  EXPECT_EQ(StatusOf(id).exit_code, 9);
  EXPECT_EQ(StatusOf(id).reason, "Error");
}

TEST_F(RecoveryTest, AVmThatEndedMeanwhileIsDead) {
  const std::string pod = RunPod();
  const std::string id = RunContainer(pod);
  runtime_.reset();
  ASSERT_TRUE(machine_.KillVm(pod));
  Start();
  EXPECT_EQ(StateOf(pod), PodState::kNotReady);
  EXPECT_EQ(StatusOf(id).state, ContainerState::kExited);
  EXPECT_EQ(StatusOf(id).exit_code, 255);
  EXPECT_EQ(StatusOf(id).reason, "Unknown");
  EXPECT_GT(StatusOf(id).finished_at, 0);
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(RecoveryTest, AfterARebootNothingLives) {
  const std::string pod = RunPod();
  const std::string id = RunContainer(pod);
  runtime_.reset();
  ChangeStore([](Store& store) { return store.SetBootId("another boot"); });
  machine_.Reboot();
  Start();
  EXPECT_EQ(StateOf(pod), PodState::kNotReady);
  EXPECT_EQ(StatusOf(id).reason, "Unknown");
  EXPECT_THAT(StatusOf(id).message, HasSubstr("rebooted"));
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(RecoveryTest, AGuestThatStartedAnewIsNotThePod) {
  const std::string pod = RunPod();
  const std::string id = RunContainer(pod);
  runtime_.reset();
  Guest(pod).Reboot();
  Start();
  EXPECT_EQ(StateOf(pod), PodState::kNotReady);
  EXPECT_EQ(machine_.alive_count(), 0);
  EXPECT_EQ(StatusOf(id).state, ContainerState::kExited);
}

TEST_F(RecoveryTest, AGuestThatIsSilentIsKeptAndHeardLater) {
  const std::string pod = RunPod();
  const std::string id = RunContainer(pod);
  runtime_.reset();
  ASSERT_TRUE(Guest(pod).Exit(id, "", 4));
  Guest(pod).SetChannelDown(true);
  Start();
  EXPECT_EQ(StateOf(pod), PodState::kReady);
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  Guest(pod).SetChannelDown(false);
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_EQ(StatusOf(id).exit_code, 4);
}

TEST_F(RecoveryTest, AStartWaitsForNoGuest) {
  const std::string still = RunPod("still");
  const std::string running = RunContainer(still, "running");
  const std::string started = CreateContainer(still, "started");
  const std::string half = CreateContainer(still, "half");
  const std::string other = RunContainer(RunPod("other"));
  runtime_.reset();
  auto client = agents_.Connect(options_.state_directory + "/pods/" + still + "/agent.sock");
  agent::v1::StartContainerRequest request;
  request.set_container_id(started);
  ASSERT_TRUE(client->StartContainer(context_, request).ok());
  client.reset();
  ChangeStore([&](Store& store) { return store.SetContainerPhase(half, ContainerPhase::kRemoving); });
  Guest(still).Block("Hello");
  Start();
  // Huskd is here, and the other pod with it; the guest that stands still has been waited for, and is still.
  EXPECT_EQ(StateOf(still), PodState::kReady);
  EXPECT_EQ(StatusOf(running).state, ContainerState::kRunning);
  EXPECT_EQ(StatusOf(started).state, ContainerState::kCreated) << "only the guest knows better";
  EXPECT_THAT(Guest(still).container_ids(), SizeIs(3));
  EXPECT_TRUE(runtime_->StopContainer(context_, other, std::chrono::seconds(0)).ok());
  // What needs the guest waits for that guest.
  const Context brief = context_.WithTimeout(std::chrono::milliseconds(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(runtime_->CreateContainer(brief, still, Config("new")).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(runtime_->ExecSync(brief, running, {"/bin/true"}, {}).status()));

  Guest(still).Release("Hello");
  EXPECT_TRUE(Eventually([&] { return StatusOf(started).state == ContainerState::kRunning; }));
  EXPECT_TRUE(Eventually([&] { return Guest(still).container_ids().size() == 2; })) << "the half one is gone";
  CreateContainer(still, "new");
  EXPECT_TRUE(runtime_->RemovePod(context_, still).ok());
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(RecoveryTest, AStopDoesNotWaitForAGuestThatIsSilent) {
  const std::string pod = RunPod();
  RunContainer(pod);
  runtime_.reset();
  Guest(pod).Block("Hello");
  Start();
  EXPECT_TRUE(runtime_->RemovePod(context_, pod).ok());
  ExpectNothingLeft();
}

TEST_F(RecoveryTest, AGuestThatSaysLateThatItIsAnotherIsEnded) {
  const std::string pod = RunPod();
  const std::string id = RunContainer(pod);
  runtime_.reset();
  Guest(pod).Reboot();
  Guest(pod).Block("Hello");
  Start();
  EXPECT_EQ(StateOf(pod), PodState::kReady);
  Guest(pod).Release("Hello");
  EXPECT_TRUE(Eventually([&] { return StateOf(pod) == PodState::kNotReady; }));
  EXPECT_EQ(StatusOf(id).state, ContainerState::kExited);
  EXPECT_TRUE(Eventually([&] { return machine_.alive_count() == 0; }));
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(RecoveryTest, AnEndOfHuskdDoesNotWaitForAGuestEither) {
  const std::string pod = RunPod();
  runtime_.reset();
  Guest(pod).Block("Hello");
  Start();
  Restart();
  EXPECT_EQ(StateOf(pod), PodState::kReady);
  Guest(pod).Release("Hello");
  CreateContainer(pod);
}

TEST_F(RecoveryTest, AContainerStartedWithoutARecordRuns) {
  const std::string pod = RunPod();
  const std::string id = CreateContainer(pod);
  runtime_.reset();
  auto client = agents_.Connect(options_.state_directory + "/pods/" + pod + "/agent.sock");
  agent::v1::StartContainerRequest request;
  request.set_container_id(id);
  ASSERT_TRUE(client->StartContainer(context_, request).ok());
  Start();
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  EXPECT_GT(StatusOf(id).started_at, 0);
}

TEST_F(RecoveryTest, AContainerThatTheGuestForgotIsGone) {
  const std::string pod = RunPod();
  const std::string id = RunContainer(pod);
  runtime_.reset();
  auto client = agents_.Connect(options_.state_directory + "/pods/" + pod + "/agent.sock");
  agent::v1::RemoveContainerRequest request;
  request.set_container_id(id);
  ASSERT_TRUE(client->RemoveContainer(context_, request).ok());
  Start();
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_EQ(StatusOf(id).exit_code, 255);
  EXPECT_EQ(StatusOf(id).reason, "Unknown");
}

TEST_F(RecoveryTest, WhatWasBeingMadeOrRemovedIsRemoved) {
  const std::string pod = RunPod();
  const std::string kept = CreateContainer(pod, "kept");
  const std::string half = CreateContainer(pod, "half");
  ContainerConfig other = Config("other");
  other.image = "other";
  ASSERT_TRUE(runtime_->CreateContainer(context_, pod, other).ok());
  const std::string stopping = RunPod("stopping");
  runtime_.reset();
  ChangeStore([&](Store& store) -> Status {
    HUSK_RETURN_IF_ERROR(store.SetPodPhase(stopping, PodPhase::kRemoving));
    return store.SetContainerPhase(half, ContainerPhase::kRemoving);
  });
  Start();
  EXPECT_TRUE(absl::IsNotFound(runtime_->GetPod(stopping, false).status()));
  EXPECT_TRUE(absl::IsNotFound(runtime_->GetContainer(half, false).status()));
  EXPECT_EQ(StatusOf(kept).state, ContainerState::kCreated);
  EXPECT_THAT(Guest(pod).container_ids(), SizeIs(2));
  EXPECT_EQ(machine_.alive_count(), 1);
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(RecoveryTest, WhatIsInNoRecordIsRemoved) {
  runtime_.reset();
  network_.AddStrayNamespace("stray");
  std::filesystem::create_directories(options_.state_directory + "/pods/lost");
  std::filesystem::create_directories(options_.root_directory + "/pods/lost");
  std::filesystem::create_directories(options_.root_directory + "/pods/Not An Id");
  Start();
  EXPECT_EQ(network_.namespaces(), 0U);
  EXPECT_EQ(network_.attachments(), 0U);
  EXPECT_EQ(Entries(options_.state_directory + "/pods"), 0U);
  EXPECT_EQ(Entries(options_.root_directory + "/pods"), 1U);
}

TEST_F(RecoveryTest, ARemovalThatCannotFinishIsShownAndRepeatable) {
  const std::string pod = RunPod();
  runtime_.reset();
  ChangeStore([&](Store& store) { return store.SetPodPhase(pod, PodPhase::kRemoving); });
  network_.FailNext("Detach", absl::InternalError("CNI DEL fails"));
  Start();
  EXPECT_EQ(StateOf(pod), PodState::kNotReady);
  EXPECT_TRUE(runtime_->RemovePod(context_, pod).ok());
  ExpectNothingLeft();
}

TEST_F(RecoveryTest, StoppedPodsStayStopped) {
  const std::string pod = RunPod();
  const std::string id = RunContainer(pod);
  ASSERT_TRUE(runtime_->StopPod(context_, pod).ok());
  Restart();
  EXPECT_EQ(StateOf(pod), PodState::kNotReady);
  EXPECT_EQ(StatusOf(id).exit_code, 137);
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(RecoveryTest, ASecondRuntimeOnTheSameDirectoryIsRefused) {
  const auto second = NewRuntime(options_, FakeParts());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another huskd"));
}

}  // namespace
}  // namespace husk::sandbox
