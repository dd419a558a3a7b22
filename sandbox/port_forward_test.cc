// Forwarded connections from the exchange to a fake guest and back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "agent/common/mutex.h"
#include "sandbox/port_exchange.h"
#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PortForwardTest : public RuntimeFixture {
 protected:
  struct Seen {
    std::string output;
    bool ended = false;
    std::optional<Status> over;
  };

  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
    Guest(pod_).Listen(80, {});
  }
  void TearDown() override { Stop().IgnoreError(); }
  // As a session of the streaming server does.
  void Forward() {
    thread_ = std::thread(
        [this] { outcome_ = runtime_->PortForward(context_.WithStopToken(gone_.get_token()), pod_, exchange_); });
  }
  Status Stop() {
    gone_.request_stop();
    return Join();
  }
  Status Join() {
    if (thread_.joinable()) thread_.join();
    return outcome_;
  }
  Seen Of(std::uint64_t connection) {
    const MutexLock lock(mutex_);
    return seen_[connection];
  }
  bool AwaitOver(std::uint64_t connection) {
    return Eventually([&] { return Of(connection).over.has_value(); });
  }

  std::string pod_;
  Mutex mutex_;
  std::map<std::uint64_t, Seen> seen_ ABSL_GUARDED_BY(mutex_);
  PortExchange exchange_{{.output =
                              [this](std::uint64_t connection, const std::string& bytes) {
                                {
                                  const MutexLock lock(mutex_);
                                  seen_[connection].output += bytes;
                                }
                                exchange_.Sent(bytes.size());
                              },
                          .output_ended =
                              [this](std::uint64_t connection) {
                                const MutexLock lock(mutex_);
                                seen_[connection].ended = true;
                              },
                          .over =
                              [this](std::uint64_t connection, const Status& status) {
                                const MutexLock lock(mutex_);
                                seen_[connection].over = status;
                              },
                          .read_on = [] {}}};
  std::stop_source gone_;
  std::thread thread_;
  Status outcome_;
};

TEST_F(PortForwardTest, BytesGoBothWays) {
  Forward();
  exchange_.Open(1, 80);
  exchange_.Input(1, "hello ");
  ASSERT_TRUE(Eventually([&] { return Of(1).output == "hello "; }));
  exchange_.Input(1, "world");
  exchange_.EndInput(1);
  ASSERT_TRUE(AwaitOver(1));
  EXPECT_EQ(Of(1).output, "hello world");
  EXPECT_TRUE(Of(1).ended);
  EXPECT_TRUE(Of(1).over->ok());
  ASSERT_TRUE(Eventually([&] { return Guest(pod_).forwarded_connections() == 0; }));
  EXPECT_TRUE(absl::IsCancelled(Stop()));
  EXPECT_THAT(Guest(pod_).forwarding_ids(), IsEmpty());
}

TEST_F(PortForwardTest, OneThatNobodyAnswersDoesNotEndTheOthers) {
  Forward();
  exchange_.Open(1, 80);
  exchange_.Open(2, 81);
  ASSERT_TRUE(AwaitOver(2));
  EXPECT_THAT(std::string(Of(2).over->message()), HasSubstr("refused"));
  exchange_.Input(1, "still here");
  ASSERT_TRUE(Eventually([&] { return Of(1).output == "still here"; }));
}

TEST_F(PortForwardTest, AProgramThatDoesNotReadHoldsUpItsOwnConnectionOnly) {
  Guest(pod_).Listen(81, {.room = 1000});
  Forward();
  exchange_.Open(1, 81);
  exchange_.Open(2, 80);
  const std::string much(300'000, 'x');
  exchange_.Input(1, much);
  exchange_.Input(2, "quick");
  ASSERT_TRUE(Eventually([&] { return Of(2).output == "quick" && Of(1).output.size() == 1000; }));
  Guest(pod_).Listen(81, {});
  ASSERT_TRUE(Eventually([&] { return Of(1).output == much; }));
}

TEST_F(PortForwardTest, ManyConnections) {
  constexpr std::uint64_t kCount = 500;
  Forward();
  for (std::uint64_t number = 1; number <= kCount; ++number) {
    exchange_.Open(number, 80);
    exchange_.Input(number, "number " + std::to_string(number));
    exchange_.EndInput(number);
  }
  exchange_.NoMore();
  const Status done = Join();
  EXPECT_TRUE(done.ok()) << done;
  for (std::uint64_t number = 1; number <= kCount; ++number) {
    EXPECT_EQ(Of(number).output, "number " + std::to_string(number));
    EXPECT_TRUE(Of(number).over.has_value());
  }
  EXPECT_EQ(Guest(pod_).forwarded_connections(), 0U);
}

TEST_F(PortForwardTest, TheClientsGoingClosesAllInTheGuest) {
  Forward();
  exchange_.Open(1, 80);
  ASSERT_TRUE(Eventually([&] { return Guest(pod_).forwarded_connections() == 1; }));
  EXPECT_TRUE(absl::IsCancelled(Stop()));
  EXPECT_EQ(Guest(pod_).forwarded_connections(), 0U);
}

TEST_F(PortForwardTest, EndsWithThePod) {
  Forward();
  exchange_.Open(1, 80);
  ASSERT_TRUE(Eventually([&] { return Guest(pod_).forwarded_connections() == 1; }));
  ASSERT_TRUE(runtime_->StopPod(context_, pod_).ok());
  const Status ended = Join();
  EXPECT_THAT(std::string(ended.message()), HasSubstr("is being stopped"));
}

TEST_F(PortForwardTest, WhichPods) {
  EXPECT_TRUE(absl::IsNotFound(runtime_->PortForward(context_, "no-such", exchange_)));
  ASSERT_TRUE(runtime_->StopPod(context_, pod_).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(runtime_->PortForward(context_, pod_, exchange_)));
}

TEST_F(PortForwardTest, ANextHuskdClosesWhatTheLastOneLeft) {
  agent::v1::OpenForwardingRequest left;
  left.set_forwarding_id("left");
  const auto client = agents_.Connect(options_.state_directory + "/pods/" + pod_ + "/agent.sock");
  ASSERT_TRUE(client->OpenForwarding(context_, left).ok());
  ASSERT_FALSE(Guest(pod_).forwarding_ids().empty());
  Restart();
  EXPECT_THAT(Guest(pod_).forwarding_ids(), IsEmpty());
}

TEST_F(PortForwardTest, WordsOfTheGuestAreMadePrintableAndCut) {
  Guest(pod_).SetForwardingFilter([](agent::v1::PollForwardingResponse& response) {
    for (auto& news : *response.mutable_news()) news.set_error("\x1b[2J" + std::string(5000, 'x'));
  });
  Forward();
  exchange_.Open(1, 80);
  ASSERT_TRUE(AwaitOver(1));
  const std::string words(Of(1).over->message());
  EXPECT_THAT(words, ::testing::StartsWith("\\x1b[2Jxxx"));
  EXPECT_LT(words.size(), 1100U);
}

TEST_F(PortForwardTest, AGuestThatRepeatsItselfIsNotAskedAllTheTime) {
  Forward();
  exchange_.Open(1, 80);
  ASSERT_TRUE(Eventually([&] { return Guest(pod_).forwarded_connections() == 1; }));
  Guest(pod_).SetForwardingFilter([](agent::v1::PollForwardingResponse& response) {
    response.clear_news();
    auto& news = *response.add_news();
    news.set_connection(1);
    news.set_version(1);
  });
  const int before = Guest(pod_).call_count("PollForwarding");
  SleepFor(context_, std::chrono::seconds(1)).IgnoreError();
  EXPECT_LT(Guest(pod_).call_count("PollForwarding") - before, 100);
}

TEST_F(PortForwardTest, AGuestThatLiesHarmsOneConnection) {
  Guest(pod_).SetForwardingFilter([](agent::v1::PollForwardingResponse& response) {
    for (auto& news : *response.mutable_news()) {
      if (news.connection() == 1) news.set_offset(news.offset() + 1'000'000);
    }
    response.add_news()->set_connection(77);
  });
  Forward();
  exchange_.Open(1, 80);
  exchange_.Open(2, 80);
  ASSERT_TRUE(AwaitOver(1));
  EXPECT_THAT(std::string(Of(1).over->message()), HasSubstr("leaves out bytes"));
  exchange_.Input(2, "true");
  ASSERT_TRUE(Eventually([&] { return Of(2).output == "true"; }));
}

}  // namespace
}  // namespace husk::sandbox
