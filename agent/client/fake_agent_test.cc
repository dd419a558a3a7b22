#include "agent/client/fake_agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <thread>

namespace husk::agent {
namespace {

using ::testing::ElementsAre;

class FakeAgentTest : public ::testing::Test {
 protected:
  Status Create(const std::string& id) {
    v1::CreateContainerRequest request;
    request.mutable_spec()->set_id(id);
    return client_->CreateContainer(context_, request).status();
  }
  StatusOr<v1::StartContainerResponse> Start(const std::string& id) {
    v1::StartContainerRequest request;
    request.set_container_id(id);
    return client_->StartContainer(context_, request);
  }
  Status Signal(const std::string& id, std::uint32_t signal) {
    v1::SignalContainerRequest request;
    request.set_container_id(id);
    request.set_signal(signal);
    return client_->SignalContainer(context_, request);
  }
  static v1::PollRequest Watching(const std::string& id, std::uint64_t offset = 0, std::uint64_t acknowledged = 0) {
    v1::PollRequest request;
    v1::StreamCursor& cursor = *request.add_cursors();
    cursor.set_container_id(id);
    cursor.set_kind(v1::STDOUT);
    cursor.set_offset(offset);
    cursor.set_acknowledged(acknowledged);
    request.add_watch()->set_container_id(id);
    request.set_wait_milliseconds(30'000);
    return request;
  }

  const Context context_ = Context::Background("test").WithTimeout(std::chrono::seconds(60));
  FakeAgentConnector connector_;
  FakeGuest& guest_ = connector_.guest("/vm/agent.sock");
  const std::unique_ptr<AgentClient> client_ = connector_.Connect("/vm/agent.sock");
};

TEST_F(FakeAgentTest, RunsAScriptedContainer) {
  guest_.SetContainerProgram([](const v1::ContainerSpec& spec) {
    return FakeProgram{.standard_output = "I am " + spec.id(), .exit_code = 7};
  });
  ASSERT_TRUE(Create("c").ok());
  ASSERT_TRUE(Create("c").ok());
  ASSERT_TRUE(Start("c").ok());
  const auto answer = client_->Poll(context_, Watching("c"));
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ(answer->chunks_size(), 1);
  EXPECT_EQ(answer->chunks(0).data(), "I am c");
  EXPECT_TRUE(answer->chunks(0).end());
  ASSERT_EQ(answer->exits_size(), 1);
  EXPECT_EQ(answer->exits(0).exit_code(), 7);
  EXPECT_THAT(guest_.calls(), ElementsAre("CreateContainer", "CreateContainer", "StartContainer"));
}

TEST_F(FakeAgentTest, APollWaitsForOutputAndForgetsWhatIsAcknowledged) {
  ASSERT_TRUE(Create("c").ok());
  ASSERT_TRUE(Start("c").ok());
  std::thread writer([&] {
    EXPECT_TRUE(guest_.WaitForCalls("Poll", 1));
    EXPECT_TRUE(guest_.Write("c", "", v1::STDOUT, "abcdef"));
  });
  auto answer = client_->Poll(context_, Watching("c"));
  writer.join();
  ASSERT_EQ(answer->chunks_size(), 1);
  EXPECT_EQ(answer->chunks(0).data(), "abcdef");

  answer = client_->Poll(context_, Watching("c", 3, 3));
  EXPECT_EQ(answer->chunks(0).data(), "def");
  EXPECT_EQ(answer->chunks(0).offset(), 3U);
  EXPECT_EQ(guest_.process("c", "")->stdout_offset(), 3U);
}

TEST_F(FakeAgentTest, SignalsEndAContainerUnlessTheyAreIgnored) {
  guest_.SetContainerProgram([](const v1::ContainerSpec&) { return FakeProgram{.ignored_signals = {SIGTERM}}; });
  ASSERT_TRUE(Create("c").ok());
  ASSERT_TRUE(Start("c").ok());
  ASSERT_TRUE(Signal("c", SIGTERM).ok());
  EXPECT_EQ(guest_.process("c", "")->state(), v1::RUNNING);
  ASSERT_TRUE(Signal("c", SIGKILL).ok());
  EXPECT_EQ(guest_.process("c", "")->state(), v1::EXITED);
  EXPECT_EQ(guest_.process("c", "")->exit_code(), 137);
  EXPECT_THAT(guest_.signals("c", ""), ElementsAre(15U, 9U));
}

TEST_F(FakeAgentTest, FailsAsAsked) {
  guest_.FailNext("CreateContainer", absl::ResourceExhaustedError("full"));
  EXPECT_TRUE(absl::IsResourceExhausted(Create("c")));
  EXPECT_TRUE(guest_.container_ids().empty());
  guest_.FailNextAfterEffect("CreateContainer", absl::InternalError("the answer was lost"));
  EXPECT_TRUE(absl::IsInternal(Create("c")));
  EXPECT_THAT(guest_.container_ids(), ElementsAre("c"));
  EXPECT_TRUE(Create("c").ok());
}

TEST_F(FakeAgentTest, AProgramThatCannotStartLeavesAnExitedContainer) {
  guest_.SetContainerProgram([](const v1::ContainerSpec&) { return FakeProgram{.start_error = "no such program"}; });
  ASSERT_TRUE(Create("c").ok());
  const auto started = Start("c");
  EXPECT_TRUE(absl::IsFailedPrecondition(started.status()));
  EXPECT_EQ(guest_.process("c", "")->exit_code(), 128);
}

TEST_F(FakeAgentTest, ABlockedCallEndsWithItsContextOrByRelease) {
  guest_.Block("Hello");
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      client_->Hello(Context::Background().WithTimeout(std::chrono::milliseconds(5))).status()));
  std::stop_source stop;
  std::thread canceller([&] {
    EXPECT_TRUE(guest_.WaitForCalls("Hello", 2));
    stop.request_stop();
  });
  EXPECT_TRUE(absl::IsCancelled(client_->Hello(context_.WithStopToken(stop.get_token())).status()));
  canceller.join();
  std::thread releaser([&] {
    EXPECT_TRUE(guest_.WaitForCalls("Hello", 3));
    guest_.Release("Hello");
  });
  EXPECT_TRUE(client_->Hello(context_).ok());
  releaser.join();
}

TEST_F(FakeAgentTest, CloseAndALostChannelEndCallsInFlight) {
  for (const bool close : {false, true}) {
    const int before = guest_.call_count("Poll");
    std::thread breaker([&] {
      EXPECT_TRUE(guest_.WaitForCalls("Poll", before + 1));
      if (close) {
        client_->Close();
      } else {
        guest_.SetChannelDown(true);
      }
    });
    v1::PollRequest request;
    request.set_wait_milliseconds(60'000);
    EXPECT_TRUE(absl::IsUnavailable(client_->Poll(context_, request).status()));
    breaker.join();
    EXPECT_TRUE(absl::IsUnavailable(client_->Hello(context_).status()));
    guest_.SetChannelDown(false);
    if (!close) {
      EXPECT_TRUE(client_->Hello(context_).ok());
    }
  }
}

TEST_F(FakeAgentTest, AnExecEchoesItsStdin) {
  guest_.SetExecProgram([](const v1::ExecRequest&) { return FakeProgram{.echoes_stdin = true}; });
  ASSERT_TRUE(Create("c").ok());
  v1::ExecRequest exec;
  exec.set_container_id("c");
  exec.set_exec_id("e");
  EXPECT_TRUE(absl::IsFailedPrecondition(client_->Exec(context_, exec).status()));
  ASSERT_TRUE(Start("c").ok());
  ASSERT_TRUE(client_->Exec(context_, exec).ok());
  v1::WriteStdinRequest input;
  input.set_container_id("c");
  input.set_exec_id("e");
  input.set_data("hello");
  ASSERT_TRUE(client_->WriteStdin(context_, input).ok());
  input.set_close(true);
  EXPECT_EQ(client_->WriteStdin(context_, input)->offset(), 5U);
  input.set_offset(9);
  EXPECT_TRUE(absl::IsOutOfRange(client_->WriteStdin(context_, input).status()));
  EXPECT_EQ(guest_.received_stdin("c", "e"), "hello");
  EXPECT_EQ(guest_.process("c", "e")->state(), v1::EXITED);
  v1::RemoveExecRequest removal;
  removal.set_container_id("c");
  removal.set_exec_id("e");
  EXPECT_TRUE(client_->RemoveExec(context_, removal).ok());
  EXPECT_TRUE(guest_.exec_ids("c").empty());
}

TEST_F(FakeAgentTest, AGuestOutlivesItsClientsAndForgetsAtReboot) {
  ASSERT_TRUE(Create("c").ok());
  const std::string boot = client_->Hello(context_)->guest_boot_id();
  const auto second = connector_.Connect("/vm/agent.sock");
  EXPECT_EQ(second->ListProcesses(context_)->processes_size(), 1);
  guest_.Reboot();
  EXPECT_EQ(second->ListProcesses(context_)->processes_size(), 0);
  EXPECT_NE(second->Hello(context_)->guest_boot_id(), boot);
}

TEST_F(FakeAgentTest, ForwardsConnectionsToItsListeners) {
  guest_.Listen(80, {.room = 3});
  v1::OpenForwardingRequest open;
  open.set_forwarding_id("f");
  ASSERT_TRUE(client_->OpenForwarding(context_, open).ok());
  v1::SendForwardingRequest send;
  send.set_forwarding_id("f");
  for (const std::uint32_t port : {80U, 81U}) {
    v1::Dial& dial = *send.add_dials();
    dial.set_connection(port);
    dial.set_port(port);
  }
  v1::ConnectionInput& input = *send.add_inputs();
  input.set_connection(80);
  input.set_data("hello");
  input.set_end(true);
  EXPECT_EQ(client_->SendForwarding(context_, send)->taken(0).offset(), 3U);
  v1::PollForwardingRequest poll;
  poll.set_forwarding_id("f");
  poll.set_wait_milliseconds(30'000);
  auto told = client_->PollForwarding(context_, poll);
  ASSERT_EQ(told->news_size(), 2);
  EXPECT_EQ(told->news(0).data(), "hel");
  EXPECT_FALSE(told->news(0).writable());
  EXPECT_EQ(told->news(1).error(), "connection refused");
  for (const auto& news : told->news()) {
    v1::ConnectionReceipt& receipt = *poll.add_receipts();
    receipt.set_connection(news.connection());
    receipt.set_version(news.version());
    receipt.set_offset(news.offset() + news.data().size());
  }
  guest_.Listen(80, {});
  told = client_->PollForwarding(context_, poll);
  ASSERT_EQ(told->news_size(), 1);
  EXPECT_TRUE(told->news(0).writable());
  EXPECT_EQ(client_->SendForwarding(context_, send)->taken(0).offset(), 5U);
  told = client_->PollForwarding(context_, poll);
  EXPECT_EQ(told->news(0).data(), "lo");
  EXPECT_TRUE(told->news(0).end());
  EXPECT_EQ(guest_.forwarded_connections(), 2U);
  v1::CloseForwardingRequest close;
  EXPECT_TRUE(client_->CloseForwarding(context_, close).ok());
  EXPECT_TRUE(guest_.forwarding_ids().empty());
  EXPECT_TRUE(absl::IsNotFound(client_->PollForwarding(context_, poll).status()));
}

}  // namespace
}  // namespace husk::agent
