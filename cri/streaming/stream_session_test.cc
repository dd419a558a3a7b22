#include "cri/streaming/stream_session.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

namespace husk::cri {
namespace {

class StreamSessionTest : public ::testing::Test {
 protected:
  const Context context_ = Context::Background("test");
  std::atomic<std::size_t> sent_{0};
  std::atomic<int> read_ons_{0};
  StreamSession session_{{.send = [this](sandbox::OutputKind, const std::string& bytes) { sent_ += bytes.size(); },
                          .read_on = [this] { ++read_ons_; }}};
};

TEST_F(StreamSessionTest, InputComesInOrderAndEnds) {
  session_.TakeInput("one ");
  session_.TakeInput("two");
  session_.EndInput();
  session_.TakeInput("after the end");
  EXPECT_EQ(session_.ReadInput(context_).value(), "one two");
  EXPECT_EQ(session_.ReadInput(context_).value(), "");
}

TEST_F(StreamSessionTest, InputThatNobodyReadsIsBounded) {
  session_.TakeInput(std::string(StreamSession::kInputLimit - 1, 'a'));
  EXPECT_FALSE(session_.input_full());
  session_.TakeInput("aa");
  EXPECT_TRUE(session_.input_full());
  EXPECT_EQ(read_ons_, 0);
  EXPECT_FALSE(session_.ReadInput(context_)->empty());
  EXPECT_EQ(read_ons_, 1);
  EXPECT_FALSE(session_.input_full());
}

TEST_F(StreamSessionTest, IgnoredInputIsThrownAway) {
  session_.TakeInput(std::string(StreamSession::kInputLimit, 'a'));
  session_.IgnoreInput();
  EXPECT_FALSE(session_.input_full());
  EXPECT_EQ(read_ons_, 1);
  session_.TakeInput("more");
  session_.EndInput();
  EXPECT_EQ(session_.ReadInput(context_).value(), "");
}

TEST_F(StreamSessionTest, OutputWaitsForTheClient) {
  std::atomic<bool> done = false;
  std::thread writer([&] {
    EXPECT_TRUE(session_.Write(context_, sandbox::OutputKind::kStandardOutput, std::string(4'000'000, 'o')).ok());
    done = true;
  });
  std::size_t acknowledged = 0;
  while (!done) {
    const std::size_t sent = sent_;
    EXPECT_LT(sent - acknowledged, 2 * StreamSession::kOutputLimit);
    session_.Sent(sent - acknowledged);
    acknowledged = sent;
    std::this_thread::yield();
  }
  writer.join();
  EXPECT_EQ(sent_, 4'000'000U);
}

TEST_F(StreamSessionTest, WaitingEndsWithTheContext) {
  std::stop_source stop;
  const Context context = context_.WithStopToken(stop.get_token());
  std::thread input([&] { EXPECT_TRUE(absl::IsCancelled(session_.ReadInput(context).status())); });
  std::thread size([&] { EXPECT_TRUE(absl::IsCancelled(session_.NextSize(context).status())); });
  std::thread output([&] {
    const Status written = session_.Write(context, sandbox::OutputKind::kStandardOutput, std::string(4'000'000, 'o'));
    EXPECT_TRUE(absl::IsCancelled(written));
  });
  stop.request_stop();
  input.join();
  size.join();
  output.join();
}

TEST_F(StreamSessionTest, TheLastSizeCounts) {
  session_.TakeSize({.columns = 1, .rows = 2});
  session_.TakeSize({.columns = 3, .rows = 4});
  EXPECT_EQ(session_.NextSize(context_)->columns, 3U);
  EXPECT_FALSE(session_.NextSize(context_.WithTimeout(std::chrono::milliseconds(1))).ok());
}

}  // namespace
}  // namespace husk::cri
