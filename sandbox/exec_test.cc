#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <stop_token>
#include <string>
#include <thread>

#include "sandbox/testing/fake_client.h"
#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ExecTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
    container_ = RunContainer(pod_);
  }
  void Program(const agent::FakeProgram& program) {
    Guest(pod_).SetExecProgram([program](const agent::v1::ExecRequest&) { return program; });
  }
  StatusOr<std::int32_t> Exec(ExecOptions options = {.standard_output = true, .standard_error = true}) {
    if (options.command.empty()) options.command = {"cmd", "argument"};
    return runtime_->Exec(context_.WithStopToken(gone_.get_token()), container_, options, client_);
  }
  std::string OnlyExec() {
    EXPECT_TRUE(Eventually([&] { return Guest(pod_).exec_ids(container_).size() == 1; }));
    return Guest(pod_).exec_ids(container_).at(0);
  }
  std::string pod_;
  std::string container_;
  FakeClient client_;
  std::stop_source gone_;  // the client's going
};

TEST_F(ExecTest, GivesOutputAndExitCode) {
  Program({.standard_output = "out", .standard_error = "err", .exit_code = 42});
  const auto result = Exec();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, 42);
  EXPECT_EQ(client_.output(), "out");
  EXPECT_EQ(client_.error_output(), "err");
  EXPECT_THAT(Guest(pod_).exec_ids(container_), IsEmpty());
}

TEST_F(ExecTest, TellsTheGuestWhatIsWanted) {
  agent::v1::ExecRequest asked;
  Guest(pod_).SetExecProgram([&](const agent::v1::ExecRequest& request) {
    asked = request;
    return agent::FakeProgram{.exit_code = 0};
  });
  ASSERT_TRUE(Exec({.command = {"sh"}, .tty = true, .standard_input = true, .standard_output = true}).ok());
  EXPECT_TRUE(asked.tty());
  EXPECT_TRUE(asked.stdin());
  EXPECT_EQ(asked.arguments(0), "sh");
}

TEST_F(ExecTest, InputGoesInAndItsEndIsTheProcessesEnd) {
  Program({.echoes_stdin = true});
  client_.Type("one ");
  client_.Type("two");
  client_.Type("");
  const auto result = Exec({.standard_input = true, .standard_output = true});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, 0);
  EXPECT_EQ(client_.output(), "one two");
  EXPECT_TRUE(client_.ignored_input());
}

TEST_F(ExecTest, AProcessThatEndsDoesNotWaitForInput) {
  Program({.standard_output = "done", .exit_code = 3});
  const auto result = Exec({.standard_input = true, .standard_output = true});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, 3);
  EXPECT_TRUE(client_.ignored_input());
}

TEST_F(ExecTest, OutputThatNobodyWantsIsThrownAway) {
  Program({.standard_output = "out", .standard_error = "err", .exit_code = 0});
  client_.SetReading(false);
  ASSERT_TRUE(Exec({.standard_input = true}).ok());
  EXPECT_EQ(client_.writes(), 0);
}

TEST_F(ExecTest, SizesReachTheTerminal) {
  Program({});
  std::thread client([&] {
    const std::string exec = OnlyExec();
    client_.Resize(80, 24);
    EXPECT_TRUE(Guest(pod_).WaitForCalls("ResizeTerminal", 1));
    client_.Resize(120, 50);
    EXPECT_TRUE(Guest(pod_).WaitForCalls("ResizeTerminal", 2));
    EXPECT_TRUE(Guest(pod_).Exit(container_, exec, 0));
  });
  EXPECT_TRUE(Exec({.tty = true, .standard_output = true}).ok());
  client.join();
}

TEST_F(ExecTest, AClientThatGoesTakesTheProcessWithIt) {
  Program({.ignored_signals = {SIGTERM}});
  std::thread client([&] {
    OnlyExec();
    gone_.request_stop();
  });
  const auto result = Exec({.standard_input = true, .standard_output = true});
  client.join();
  EXPECT_TRUE(absl::IsCancelled(result.status())) << result.status();
  EXPECT_THAT(Guest(pod_).exec_ids(container_), IsEmpty());
  EXPECT_EQ(Guest(pod_).call_count("SignalExec"), 1);
}

TEST_F(ExecTest, AClientThatDoesNotReadDelaysNeitherItsGoingNorAStop) {
  Program({.standard_output = "unread"});
  client_.SetReading(false);
  std::thread client([&] {
    EXPECT_TRUE(Eventually([&] { return client_.writes() == 1; }));
    EXPECT_TRUE(runtime_->StopContainer(context_, container_, std::chrono::seconds(0)).ok());
    gone_.request_stop();
  });
  EXPECT_FALSE(Exec().ok());
  client.join();
}

TEST_F(ExecTest, ASlowClientLosesNothingAfterTheExit) {
  Program({});
  client_.SetReading(false);
  std::thread client([&] {
    const std::string exec = OnlyExec();
    EXPECT_TRUE(Guest(pod_).Write(container_, exec, agent::v1::STDOUT, "first "));
    EXPECT_TRUE(Eventually([&] { return client_.writes() == 1; }));
    EXPECT_TRUE(Guest(pod_).Write(container_, exec, agent::v1::STDOUT, "last"));
    EXPECT_TRUE(Guest(pod_).Exit(container_, exec, 7));
    client_.SetReading(true);
  });
  const auto result = Exec();
  client.join();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, 7);
  EXPECT_EQ(client_.output(), "first last");
}

TEST_F(ExecTest, WhatADeadHuskdWasRunningIsEnded) {
  Program({});
  std::thread client([&] {
    OnlyExec();
    // As if the process had died: it does not clean up.
    Guest(pod_).FailNext("SignalExec", absl::UnavailableError("gone"));
    Guest(pod_).FailNext("RemoveExec", absl::UnavailableError("gone"));
    gone_.request_stop();
  });
  EXPECT_FALSE(Exec().ok());
  client.join();
  ASSERT_EQ(Guest(pod_).exec_ids(container_).size(), 1U);
  Restart();
  EXPECT_THAT(Guest(pod_).exec_ids(container_), IsEmpty());
  EXPECT_EQ(StatusOf(container_).state, ContainerState::kRunning);
}

TEST_F(ExecTest, AProgramThatIsNotThereIsNotFound) {
  Program({.start_error = "no such program"});
  EXPECT_TRUE(absl::IsNotFound(Exec().status()));
}

TEST_F(ExecTest, NeedsARunningContainer) {
  ASSERT_TRUE(Guest(pod_).Exit(container_, "", 0));
  ASSERT_TRUE(AwaitExit(container_));
  EXPECT_EQ(Exec().status().code(), absl::StatusCode::kFailedPrecondition);
  container_ = "unknown";
  EXPECT_TRUE(absl::IsNotFound(Exec().status()));
}

TEST_F(ExecTest, AStopOfThePodEndsIt) {
  Program({});
  std::thread caller([&] { EXPECT_EQ(Exec().status().code(), absl::StatusCode::kAborted); });
  OnlyExec();
  EXPECT_TRUE(runtime_->StopPod(context_, pod_).ok());
  caller.join();
}

TEST_F(ExecTest, TheEndOfTheVmEndsIt) {
  Program({});
  std::thread caller([&] { EXPECT_TRUE(absl::IsUnavailable(Exec().status())); });
  OnlyExec();
  EXPECT_TRUE(machine_.KillVm(pod_));
  caller.join();
}

}  // namespace
}  // namespace husk::sandbox
