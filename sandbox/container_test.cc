// Containers: their states, their logs, their ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <string>
#include <thread>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ContainerTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
  }
  void Program(const agent::FakeProgram& program) {
    Guest(pod_).SetContainerProgram([program](const agent::v1::ContainerSpec&) { return program; });
  }
  std::string pod_;
};

TEST_F(ContainerTest, LivesFromCreatedToRemoved) {
  const std::string id = CreateContainer(pod_);
  ContainerStatus status = StatusOf(id);
  EXPECT_EQ(status.state, ContainerState::kCreated);
  EXPECT_EQ(status.pod_id, pod_);
  EXPECT_GT(status.created_at, 0);
  EXPECT_EQ(status.started_at, 0);
  EXPECT_EQ(status.image_id, "sha256:app");
  EXPECT_EQ(status.image_reference, "host/app@sha256:1");
  EXPECT_EQ(status.log_path, directory_ + "/logs/pod/main.log");

  ASSERT_TRUE(runtime_->StartContainer(context_, id).ok());
  ASSERT_TRUE(runtime_->StartContainer(context_, id).ok());
  status = StatusOf(id);
  EXPECT_EQ(status.state, ContainerState::kRunning);
  EXPECT_GE(status.started_at, status.created_at);

  ASSERT_TRUE(Guest(pod_).Write(id, "", agent::v1::STDOUT, "hello\nlast words"));
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 0));
  ASSERT_TRUE(AwaitExit(id));
  status = StatusOf(id);
  EXPECT_EQ(status.reason, "Completed");
  EXPECT_EQ(status.exit_code, 0);
  EXPECT_GE(status.finished_at, status.started_at);
  EXPECT_THAT(Log("pod", "main"), HasSubstr("stdout F hello\n"));
  EXPECT_THAT(Log("pod", "main"), HasSubstr(" last words\n"));

  ASSERT_TRUE(runtime_->RemoveContainer(context_, id).ok());
  ASSERT_TRUE(runtime_->RemoveContainer(context_, id).ok());
  EXPECT_TRUE(absl::IsNotFound(runtime_->GetContainer(id, false).status()));
  EXPECT_EQ(images_.leases(), 0);
  EXPECT_THAT(machine_.vm(pod_)->disks, IsEmpty());
  EXPECT_THAT(Guest(pod_).container_ids(), IsEmpty());
}

TEST_F(ContainerTest, EndsByReason) {
  const std::string error = RunContainer(pod_, "error");
  const std::string oom = RunContainer(pod_, "oom");
  ASSERT_TRUE(Guest(pod_).Exit(error, "", 3));
  ASSERT_TRUE(Guest(pod_).Exit(oom, "", 137, /*oom_killed=*/true));
  ASSERT_TRUE(AwaitExit(error));
  ASSERT_TRUE(AwaitExit(oom));
  EXPECT_EQ(StatusOf(error).reason, "Error");
  EXPECT_EQ(StatusOf(error).exit_code, 3);
  EXPECT_EQ(StatusOf(oom).reason, "OOMKilled");
  EXPECT_EQ(StatusOf(oom).exit_code, 137);
  EXPECT_EQ(runtime_->StartContainer(context_, error).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ContainerTest, AStartThatFailsIsAStartError) {
  Program({.start_error = "crun: executable file not found"});
  const std::string id = CreateContainer(pod_);
  const Status started = runtime_->StartContainer(context_, id);
  EXPECT_EQ(started.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(started.message()), HasSubstr("executable file not found"));
  const ContainerStatus status = StatusOf(id);
  EXPECT_EQ(status.state, ContainerState::kExited);
  EXPECT_EQ(status.reason, "StartError");
  EXPECT_EQ(status.exit_code, 128);
  EXPECT_THAT(status.message, HasSubstr("executable file not found"));
}

TEST_F(ContainerTest, AStartWhoseAnswerIsLostIsFoundOut) {
  const std::string id = CreateContainer(pod_);
  Guest(pod_).FailNextAfterEffect("StartContainer", absl::UnavailableError("the channel broke"));
  EXPECT_FALSE(runtime_->StartContainer(context_, id).ok());
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 1));
  EXPECT_TRUE(AwaitExit(id));
}

TEST_F(ContainerTest, OutputOfManyLinesArrivesOnceAndInOrder) {
  const std::string id = RunContainer(pod_);
  std::string expected;
  for (int line = 0; line < 2000; ++line) {
    ASSERT_TRUE(Guest(pod_).Write(id, "", agent::v1::STDOUT, std::to_string(line) + "\n"));
    expected += std::to_string(line) + "\n";
  }
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 0));
  ASSERT_TRUE(AwaitExit(id));
  std::string got;
  std::ifstream log(directory_ + "/logs/pod/main.log");
  for (std::string line; std::getline(log, line);) got += line.substr(line.rfind(' ') + 1) + "\n";
  EXPECT_EQ(got, expected);
}

TEST_F(ContainerTest, AGrandchildThatKeepsTheOutputOpenHoldsTheExitUpForAMoment) {
  const std::string id = RunContainer(pod_);
  ASSERT_TRUE(Guest(pod_).Write(id, "", agent::v1::STDERR, "before the exit\n"));
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 7, false, /*close_streams=*/false));
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_EQ(StatusOf(id).exit_code, 7);
  EXPECT_THAT(Log("pod", "main"), HasSubstr("stderr F before the exit\n"));
}

TEST_F(ContainerTest, AHostileGuestCannotInventWhatIsNotThere) {
  const std::string id = RunContainer(pod_);
  Guest(pod_).SetPollFilter([id](agent::v1::PollResponse& response) {
    auto& stranger = *response.add_chunks();
    stranger.set_container_id("somebody else");
    stranger.set_data("x\n");
    auto& gap = *response.add_chunks();
    gap.set_container_id(id);
    gap.set_kind(agent::v1::STDOUT);
    gap.set_offset(1'000'000);
    gap.set_data("forged\n");
    auto& early = *response.add_exits();
    early.set_container_id(id);
    early.set_state(agent::v1::RUNNING);
    auto& other = *response.add_exits();
    other.set_container_id("somebody else");
    other.set_state(agent::v1::EXITED);
    response.add_unknown()->set_container_id("somebody else");
  });
  const int before = Guest(pod_).call_count("Poll");
  ASSERT_TRUE(Guest(pod_).WaitForCalls("Poll", before + 3));
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  Guest(pod_).SetPollFilter([](agent::v1::PollResponse& response) {
    for (auto& exit : *response.mutable_exits()) {
      exit.set_exit_code(-77);
      exit.set_finished_at(std::numeric_limits<std::int64_t>::max());
    }
  });
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 1));
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_EQ(StatusOf(id).exit_code, 255);
  EXPECT_LT(StatusOf(id).finished_at, std::numeric_limits<std::int64_t>::max());
  EXPECT_THAT(Log("pod", "main"), IsEmpty());
}

TEST_F(ContainerTest, SurvivesAChannelThatBreaks) {
  const std::string id = RunContainer(pod_);
  Guest(pod_).SetChannelDown(true);
  ASSERT_TRUE(Guest(pod_).Write(id, "", agent::v1::STDOUT, "written in the dark\n"));
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 0));
  Guest(pod_).SetChannelDown(false);
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_THAT(Log("pod", "main"), HasSubstr("written in the dark"));
}

TEST_F(ContainerTest, StopsByTheImagesSignal) {
  const std::string id = RunContainer(pod_);
  ASSERT_TRUE(runtime_->StopContainer(context_, id, hours(1)).ok());
  EXPECT_EQ(StatusOf(id).exit_code, 128 + SIGINT);
  EXPECT_THAT(Guest(pod_).signals(id, ""), ElementsAre(SIGINT));
  EXPECT_TRUE(runtime_->StopContainer(context_, id, hours(1)).ok());
}

TEST_F(ContainerTest, TheConfigurationsSignalComesFirst) {
  ContainerConfig config = Config("main");
  config.stop_signal = "SIGRTMIN+3";
  const auto id = runtime_->CreateContainer(context_, pod_, config);
  ASSERT_TRUE(id.ok()) << id.status();
  ASSERT_TRUE(runtime_->StartContainer(context_, *id).ok());
  ASSERT_TRUE(runtime_->StopContainer(context_, *id, hours(1)).ok());
  EXPECT_THAT(Guest(pod_).signals(*id, ""), ElementsAre(37));
}

TEST_F(ContainerTest, KillsWhatDoesNotListen) {
  Program({.ignored_signals = {SIGINT}});
  const std::string id = RunContainer(pod_);
  ASSERT_TRUE(runtime_->StopContainer(context_, id, milliseconds(20)).ok());
  EXPECT_EQ(StatusOf(id).exit_code, 137);
  EXPECT_THAT(Guest(pod_).signals(id, ""), ElementsAre(SIGINT, SIGKILL));
}

TEST_F(ContainerTest, NoGraceKillsAtOnce) {
  const std::string id = RunContainer(pod_);
  ASSERT_TRUE(runtime_->StopContainer(context_, id, nanoseconds(0)).ok());
  EXPECT_THAT(Guest(pod_).signals(id, ""), ElementsAre(SIGKILL));
}

TEST_F(ContainerTest, TheStopSignalIsSentOnce) {
  Program({.ignored_signals = {SIGINT}});
  const std::string id = RunContainer(pod_);
  EXPECT_FALSE(runtime_->StopContainer(context_.WithTimeout(milliseconds(30)), id, hours(1)).ok());
  EXPECT_FALSE(runtime_->StopContainer(context_.WithTimeout(milliseconds(30)), id, hours(1)).ok());
  EXPECT_THAT(Guest(pod_).signals(id, ""), ElementsAre(SIGINT));
}

TEST_F(ContainerTest, AStopThatAMuteGuestDoesNotHearEndsItsVm) {
  options_.mute_guest_limit = milliseconds(20);
  Restart();
  const std::string id = RunContainer(pod_);
  Guest(pod_).Block("SignalContainer");
  // It still answers, so it may yet do what it was told.
  EXPECT_TRUE(absl::IsDeadlineExceeded(runtime_->StopContainer(context_.WithTimeout(milliseconds(30)), id, hours(1))));
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  Guest(pod_).Block("Hello");
  EXPECT_TRUE(runtime_->StopContainer(context_.WithTimeout(milliseconds(30)), id, hours(1)).ok());
  const ContainerStatus status = StatusOf(id);
  EXPECT_EQ(status.state, ContainerState::kExited);
  EXPECT_EQ(status.exit_code, 255);
  EXPECT_EQ(status.reason, "Unknown");
  EXPECT_THAT(status.message, ::testing::HasSubstr("its guest has not answered for"));
  EXPECT_EQ(StateOf(pod_), PodState::kNotReady);
  EXPECT_TRUE(runtime_->StopPod(context_, pod_).ok());
}

TEST_F(ContainerTest, AGuestThatIsHeardMeanwhileIsNotMute) {
  options_.mute_guest_limit = milliseconds(20);
  Restart();
  const std::string id = RunContainer(pod_);
  Guest(pod_).Block("SignalContainer");
  Guest(pod_).Block("Hello");
  std::thread stopper([&] {
    EXPECT_TRUE(
        absl::IsDeadlineExceeded(runtime_->StopContainer(context_.WithTimeout(milliseconds(700)), id, hours(1))));
  });
  EXPECT_TRUE(Guest(pod_).WaitForCalls("SignalContainer", 1));
  EXPECT_EQ(runtime_->ListPodStats(context_, {}).size(), 1U);
  stopper.join();
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
}

TEST_F(ContainerTest, ASilenceThatIsShortEndsNothing) {
  const std::string id = RunContainer(pod_);
  Guest(pod_).Block("SignalContainer");
  Guest(pod_).Block("Hello");
  EXPECT_TRUE(absl::IsDeadlineExceeded(runtime_->StopContainer(context_.WithTimeout(milliseconds(30)), id, hours(1))));
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
}

TEST_F(ContainerTest, AGraceOfOneContainerHoldsNoOtherUp) {
  Program({.ignored_signals = {SIGINT}});
  const std::string patient = RunContainer(pod_, "patient");
  std::thread stopper([&] { EXPECT_TRUE(runtime_->StopContainer(context_, patient, hours(1)).ok()); });
  ASSERT_TRUE(Guest(pod_).WaitForCalls("SignalContainer", 1));
  RunContainer(pod_, "other");
  ASSERT_TRUE(Guest(pod_).Exit(patient, "", 0));
  stopper.join();
}

TEST_F(ContainerTest, CreatingTwiceGivesTheSame) {
  const std::string id = CreateContainer(pod_);
  EXPECT_EQ(CreateContainer(pod_), id);
  EXPECT_THAT(runtime_->ListContainers({}), SizeIs(1));
  EXPECT_EQ(images_.leases(), 1);
}

TEST_F(ContainerTest, OneImageIsOneDiskPerPod) {
  const std::string first = CreateContainer(pod_, "a");
  const std::string second = CreateContainer(pod_, "b");
  ContainerConfig other = Config("c");
  other.image = "other";
  ASSERT_TRUE(runtime_->CreateContainer(context_, pod_, other).ok());
  EXPECT_THAT(machine_.vm(pod_)->disks, SizeIs(2));
  ASSERT_TRUE(runtime_->RemoveContainer(context_, first).ok());
  EXPECT_THAT(machine_.vm(pod_)->disks, SizeIs(2));
  ASSERT_TRUE(runtime_->RemoveContainer(context_, second).ok());
  EXPECT_THAT(machine_.vm(pod_)->disks, SizeIs(1));
}

TEST_F(ContainerTest, ACreationThatFailsLeavesNothing) {
  const Status failure = absl::InternalError("injected");
  machine_.FailNext(hypervisor::FakeOperation::kAttachDisk, failure);
  EXPECT_FALSE(runtime_->CreateContainer(context_, pod_, Config("main")).ok());
  Guest(pod_).FailNext("CreateContainer", failure);
  EXPECT_FALSE(runtime_->CreateContainer(context_, pod_, Config("main")).ok());
  Guest(pod_).FailNextAfterEffect("CreateContainer", failure);
  EXPECT_FALSE(runtime_->CreateContainer(context_, pod_, Config("main")).ok());
  EXPECT_THAT(runtime_->ListContainers({}), IsEmpty());
  EXPECT_THAT(machine_.vm(pod_)->disks, IsEmpty());
  EXPECT_THAT(Guest(pod_).container_ids(), IsEmpty());
  EXPECT_EQ(images_.leases(), 0);
  CreateContainer(pod_);
}

TEST_F(ContainerTest, LooksIntoARunningContainerOfItsPod) {
  ContainerConfig config = Config("debug");
  config.security.namespaces.pid = NamespaceMode::kTarget;
  config.security.namespaces.target_container_id = "nobody\x1b";
  auto made = runtime_->CreateContainer(context_, pod_, config);
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(made.status().message()),
              testing::HasSubstr("target_id: the pod has no container \"nobody\\x1b\""));
  const std::string target = CreateContainer(pod_);
  config.security.namespaces.target_container_id = target;
  EXPECT_EQ(runtime_->CreateContainer(context_, pod_, config).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(runtime_->StartContainer(context_, target).ok());
  made = runtime_->CreateContainer(context_, pod_, config);
  ASSERT_TRUE(made.ok()) << made.status();
}

TEST_F(ContainerTest, RefusesBadConfigurations) {
  ContainerConfig config = Config("main");
  config.image = "missing";
  EXPECT_TRUE(absl::IsNotFound(runtime_->CreateContainer(context_, pod_, config).status()));
  config = Config("main");
  config.log_path = "../escape.log";
  EXPECT_EQ(runtime_->CreateContainer(context_, pod_, config).status().code(), absl::StatusCode::kInvalidArgument);
  config = Config("main");
  config.security.user.gid = 5;
  EXPECT_EQ(runtime_->CreateContainer(context_, pod_, config).status().code(), absl::StatusCode::kInvalidArgument);
  config = Config("main");
  config.stop_signal = "SIGNONSENSE";
  EXPECT_EQ(runtime_->CreateContainer(context_, pod_, config).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(runtime_->CreateContainer(context_, pod_, Config("")).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::IsNotFound(runtime_->CreateContainer(context_, "nobody", Config("main")).status()));
  EXPECT_EQ(images_.leases(), 0);
}

TEST_F(ContainerTest, RemovingARunningOneKillsIt) {
  const std::string id = RunContainer(pod_);
  ASSERT_TRUE(runtime_->RemoveContainer(context_, id).ok());
  EXPECT_THAT(Guest(pod_).container_ids(), IsEmpty());
}

TEST_F(ContainerTest, TheEndOfTheVmShowsAtOnce) {
  const std::string other = RunPod("other");
  const std::string running = RunContainer(pod_, "running");
  const std::string created = CreateContainer(pod_, "created");
  const std::string spared = RunContainer(other);
  // No matter what is under way in it.
  Guest(pod_).Block("StartContainer");
  std::thread starter([&] { EXPECT_TRUE(absl::IsUnavailable(runtime_->StartContainer(context_, created))); });
  ASSERT_TRUE(Guest(pod_).WaitForCalls("StartContainer", 2));
  ASSERT_TRUE(machine_.KillVm(pod_));
  ASSERT_TRUE(Eventually([&] { return StateOf(pod_) == PodState::kNotReady; }));
  for (const std::string& id : {running, created}) {
    EXPECT_EQ(StatusOf(id).state, ContainerState::kExited);
    EXPECT_EQ(StatusOf(id).exit_code, 255);
    EXPECT_EQ(StatusOf(id).reason, "Unknown");
    EXPECT_THAT(StatusOf(id).message, HasSubstr("killed by signal 9"));
  }
  starter.join();
  EXPECT_EQ(StateOf(other), PodState::kReady);
  EXPECT_EQ(StatusOf(spared).state, ContainerState::kRunning);
  EXPECT_EQ(runtime_->CreateContainer(context_, pod_, Config("new")).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(runtime_->StopContainer(context_, running, hours(1)).ok());
  EXPECT_TRUE(runtime_->RemoveContainer(context_, created).ok());
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(ContainerTest, StoppingThePodKillsItsContainers) {
  const std::string id = RunContainer(pod_);
  ASSERT_TRUE(Guest(pod_).Write(id, "", agent::v1::STDOUT, "unheard of\n"));
  ASSERT_TRUE(runtime_->StopPod(context_, pod_).ok());
  EXPECT_EQ(StatusOf(id).state, ContainerState::kExited);
  EXPECT_EQ(StatusOf(id).exit_code, 137);
  EXPECT_EQ(StatusOf(id).reason, "Error");
  EXPECT_THAT(Log("pod", "main"), HasSubstr("unheard of"));
}

TEST_F(ContainerTest, AGuestThatHangsDoesNotKeepThePodFromStopping) {
  const std::string id = RunContainer(pod_);
  Guest(pod_).Block("SignalContainer");
  Guest(pod_).Block("RemoveContainer");
  ASSERT_TRUE(runtime_->StopPod(context_, pod_).ok());
  EXPECT_EQ(StatusOf(id).exit_code, 137);
  ASSERT_TRUE(runtime_->RemovePod(context_, pod_).ok());
  ExpectNothingLeft();
}

TEST_F(ContainerTest, ReopensItsLogWhileItRuns) {
  const std::string id = RunContainer(pod_);
  ASSERT_TRUE(Guest(pod_).Write(id, "", agent::v1::STDOUT, "one\n"));
  ASSERT_TRUE(Eventually([&] { return !Log("pod", "main").empty(); }));
  const std::string path = directory_ + "/logs/pod/main.log";
  std::filesystem::rename(path, path + ".1");
  ASSERT_TRUE(runtime_->ReopenContainerLog(context_, id).ok());
  ASSERT_TRUE(Guest(pod_).Write(id, "", agent::v1::STDOUT, "two\n"));
  ASSERT_TRUE(Eventually([&] { return !Log("pod", "main").empty(); }));
  EXPECT_THAT(Log("pod", "main"), HasSubstr("F two\n"));
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 0));
  ASSERT_TRUE(AwaitExit(id));
  std::filesystem::remove(path);
  EXPECT_EQ(runtime_->ReopenContainerLog(context_, id).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ContainerTest, ListsByFilter) {
  const std::string other = RunPod("other");
  ContainerConfig config = Config("labelled");
  config.labels = {{"a", "1"}, {"b", "2"}};
  const auto labelled = runtime_->CreateContainer(context_, other, config);
  ASSERT_TRUE(labelled.ok());
  const std::string running = RunContainer(pod_);
  EXPECT_THAT(runtime_->ListContainers({}), SizeIs(2));
  EXPECT_EQ(runtime_->ListContainers({.pod_id = other}).at(0).id, *labelled);
  EXPECT_EQ(runtime_->ListContainers({.state = ContainerState::kRunning}).at(0).id, running);
  EXPECT_EQ(runtime_->ListContainers({.labels = {{"b", "2"}}}).at(0).id, *labelled);
  EXPECT_THAT(runtime_->ListContainers({.labels = {{"b", "1"}}}), IsEmpty());
}

TEST_F(ContainerTest, ReadsWaitForNobody) {
  const std::string id = RunContainer(pod_);
  Guest(pod_).Block("CreateContainer");
  std::thread creator([&] { EXPECT_FALSE(runtime_->CreateContainer(context_, pod_, Config("slow")).ok()); });
  ASSERT_TRUE(Guest(pod_).WaitForCalls("CreateContainer", 2));
  // All of these would hang if they took the pod's turn.
  EXPECT_THAT(runtime_->ListPods({}), SizeIs(1));
  EXPECT_THAT(runtime_->ListContainers({}), SizeIs(1));
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  EXPECT_TRUE(runtime_->StopPod(context_, pod_).ok());
  creator.join();
}

}  // namespace
}  // namespace husk::sandbox
