#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <algorithm>

#include <stop_token>
#include <string>
#include <thread>

#include "sandbox/output_tap.h"
#include "sandbox/testing/fake_client.h"
#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

class AttachTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
  }
  void Run(bool once = false, bool echoes = true, bool tty = false) {
    Guest(pod_).SetContainerProgram(
        [echoes](const agent::v1::ContainerSpec&) { return agent::FakeProgram{.echoes_stdin = echoes}; });
    ContainerConfig config = Config("main");
    config.stdin = true;
    config.stdin_once = once;
    config.tty = tty;
    const auto id = runtime_->CreateContainer(context_, pod_, config);
    ASSERT_TRUE(id.ok()) << id.status();
    container_ = *id;
    ASSERT_TRUE(runtime_->StartContainer(context_, container_).ok());
  }
  // In a thread of its own; the client is there when its first words have come back.
  std::thread Attach(FakeClient& client, std::stop_token gone, Status* result, AttachOptions options = kAll) {
    return std::thread([this, &client, gone = std::move(gone), result, options] {
      *result = runtime_->Attach(context_.WithStopToken(gone), container_, options, client);
    });
  }
  bool Saw(FakeClient& client, const std::string& text) {
    return Eventually([&] { return client.output().find(text) != std::string::npos; });
  }
  static constexpr AttachOptions kAll = {.standard_input = true, .standard_output = true, .standard_error = true};

  std::string pod_;
  std::string container_;
};

TEST_F(AttachTest, SeveralClientsSeeTheSameAndTypeInTurn) {
  Run();
  FakeClient first;
  FakeClient second;
  std::stop_source gone;
  Status first_result;
  Status second_result;
  std::thread one = Attach(first, gone.get_token(), &first_result);
  std::thread two = Attach(second, {}, &second_result);
  first.Type("ping ");
  ASSERT_TRUE(Saw(first, "ping "));
  second.Type("pong ");
  ASSERT_TRUE(Saw(first, "pong "));
  ASSERT_TRUE(Saw(second, "pong "));
  // One goes, and the other does not notice; nor does the container.
  gone.request_stop();
  one.join();
  EXPECT_TRUE(absl::IsCancelled(first_result));
  second.Type("still here");
  ASSERT_TRUE(Saw(second, "still here"));
  EXPECT_EQ(runtime_->GetContainer(container_, false)->state, ContainerState::kRunning);
  ASSERT_TRUE(Guest(pod_).Exit(container_, "", 3));
  two.join();
  EXPECT_TRUE(second_result.ok()) << second_result;
  EXPECT_EQ(Guest(pod_).received_stdin(container_, ""), "ping pong still here");
}

TEST_F(AttachTest, TheEndOfOneClientsInputIsNotTheContainers) {
  Run();
  FakeClient client;
  Status result;
  std::thread thread = Attach(client, {}, &result);
  client.Type("one");
  client.Type("");
  ASSERT_TRUE(Saw(client, "one"));
  ASSERT_TRUE(Eventually([&] { return client.ignored_input(); }));
  EXPECT_EQ(runtime_->GetContainer(container_, false)->state, ContainerState::kRunning);
  ASSERT_TRUE(Guest(pod_).Exit(container_, "", 0));
  thread.join();
}

TEST_F(AttachTest, StdinOnceEndsWithTheFirstClientHoweverItGoes) {
  for (const bool says_goodbye : {true, false}) {
    Run(/*once=*/true);
    FakeClient client;
    std::stop_source gone;
    Status result;
    std::thread thread = Attach(client, gone.get_token(), &result);
    client.Type("one");
    ASSERT_TRUE(Saw(client, "one"));
    if (says_goodbye) client.Type("");
    if (!says_goodbye) gone.request_stop();
    thread.join();
    EXPECT_TRUE(AwaitExit(container_));
    ASSERT_TRUE(runtime_->RemoveContainer(context_, container_).ok());
  }
}

TEST_F(AttachTest, WhatWasWrittenBeforeIsNotShown) {
  Run();
  ASSERT_TRUE(Guest(pod_).Write(container_, "", agent::v1::STDOUT, "early\n"));
  ASSERT_TRUE(Eventually([&] { return Log("pod", "main").find("early") != std::string::npos; }));
  FakeClient client;
  Status result;
  std::thread thread = Attach(client, {}, &result);
  client.Type("now");
  ASSERT_TRUE(Saw(client, "now"));
  ASSERT_TRUE(Guest(pod_).Exit(container_, "", 0));
  thread.join();
  EXPECT_EQ(client.output(), "now");
}

TEST_F(AttachTest, AClientThatDoesNotReadIsCutOffAndTheLogIsWhole) {
  Run();
  FakeClient client;
  client.SetReading(false);
  Status result;
  std::thread thread = Attach(client, {}, &result);
  client.Type("a");
  ASSERT_TRUE(Eventually([&] { return client.writes() == 1; }));
  const std::string line = std::string(99'999, 'x') + "\n";
  for (int count = 0; count < 30; ++count) {
    ASSERT_TRUE(Guest(pod_).Write(container_, "", agent::v1::STDOUT, line));
  }
  thread.join();
  EXPECT_TRUE(absl::IsResourceExhausted(result)) << result;
  ASSERT_TRUE(Guest(pod_).Exit(container_, "", 0));
  EXPECT_TRUE(AwaitExit(container_));
  const std::string log = Log("pod", "main");
  EXPECT_EQ(std::count(log.begin(), log.end(), 'x'), 30 * 99'999);
}

TEST_F(AttachTest, SizesReachTheContainersTerminal) {
  Run(false, true, /*tty=*/true);
  FakeClient client;
  Status result;
  std::thread thread = Attach(client, {}, &result, {.standard_input = true, .standard_output = true});
  client.Resize(80, 24);
  EXPECT_TRUE(Guest(pod_).WaitForCalls("ResizeTerminal", 1));
  ASSERT_TRUE(Guest(pod_).Exit(container_, "", 0));
  thread.join();
}

TEST_F(AttachTest, NeedsARunningContainerWithInput) {
  const std::string mute = RunContainer(pod_);
  FakeClient client;
  EXPECT_EQ(runtime_->Attach(context_, mute, kAll, client).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Guest(pod_).Exit(mute, "", 0));
  ASSERT_TRUE(AwaitExit(mute));
  EXPECT_EQ(runtime_->Attach(context_, mute, {.standard_output = true}, client).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::IsNotFound(runtime_->Attach(context_, "unknown", kAll, client)));
}

TEST_F(AttachTest, TheEndOfTheVmEndsIt) {
  Run();
  FakeClient client;
  Status result;
  std::thread thread = Attach(client, {}, &result);
  client.Type("here");
  ASSERT_TRUE(Saw(client, "here"));
  EXPECT_TRUE(machine_.KillVm(pod_));
  thread.join();
  EXPECT_FALSE(result.ok());
}

TEST(OutputTapTest, JoinsPiecesAndEnds) {
  const Context context = Context::Background();
  OutputTap tap;
  tap.Put(OutputKind::kStandardOutput, "a");
  tap.Put(OutputKind::kStandardOutput, "b");
  tap.Put(OutputKind::kStandardError, "c");
  tap.Close();
  tap.Put(OutputKind::kStandardOutput, "late");
  EXPECT_EQ(tap.Take(context)->bytes, "ab");
  EXPECT_EQ(tap.Take(context)->kind, OutputKind::kStandardError);
  EXPECT_EQ(tap.Take(context)->bytes, "");
}

}  // namespace
}  // namespace husk::sandbox
