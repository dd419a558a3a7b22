#include "agent/common/context.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

namespace husk {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

TEST(Context, BackgroundNeverEnds) {
  const Context context = Context::Background("r1");
  EXPECT_TRUE(context.Check().ok());
  EXPECT_EQ(context.remaining_ms(), -1);
  EXPECT_EQ(context.remaining_ms(50), 50);
  EXPECT_EQ(context.request_id(), "r1");
}

TEST(Context, EndsAtTheEarlierDeadline) {
  const Context context = Context::Background().WithTimeout(milliseconds(0)).WithTimeout(hours(1));
  EXPECT_EQ(context.Check().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(context.remaining_ms(), 0);
}

TEST(Context, ATokenOfAnyAncestorEndsIt) {
  std::stop_source request;
  std::stop_source pod;
  const Context outer = Context::Background().WithStopToken(request.get_token());
  const Context inner = outer.WithStopToken(pod.get_token());
  pod.request_stop();
  EXPECT_TRUE(outer.Check().ok());
  EXPECT_EQ(inner.Check().code(), absl::StatusCode::kCancelled);

  const Context other = outer.WithStopToken(std::stop_source().get_token());
  request.request_stop();
  EXPECT_EQ(other.Check().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(outer.WithStopToken(std::stop_token()).Check().code(), absl::StatusCode::kCancelled);
}

TEST(Context, DetachedForgetsTheOldEnds) {
  std::stop_source request;
  request.request_stop();
  const Context context = Context::Background("r2").WithStopToken(request.get_token());
  const Context undo = context.Detached(hours(1));
  EXPECT_TRUE(undo.Check().ok());
  EXPECT_EQ(undo.request_id(), "r2");
  EXPECT_NE(undo.deadline(), Context::Clock::time_point::max());
}

TEST(Context, StopFdWakesAPoll) {
  std::stop_source request;
  const Context context = Context::Background().WithStopToken(request.get_token());
  const StopFd stop(context);
  pollfd fd{.fd = stop.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&fd, 1, 0), 0);
  std::jthread stopper([&] { request.request_stop(); });
  EXPECT_EQ(poll(&fd, 1, -1), 1);
}

TEST(Context, SleepEndsWithTheContext) {
  std::stop_source request;
  const Context context = Context::Background().WithStopToken(request.get_token());
  std::jthread stopper([&] { request.request_stop(); });
  EXPECT_EQ(SleepFor(context, hours(1)).code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(SleepFor(Context::Background(), milliseconds(1)).ok());
}

}  // namespace
}  // namespace husk
