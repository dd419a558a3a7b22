#include "sandbox/drain.h"

#include <gtest/gtest.h>

namespace husk::sandbox {
namespace {

TEST(DrainTest, IsNotOverBeforeSomebodyAsked) {
  Drain drain;
  EXPECT_FALSE(drain.over());
  drain.Idle();
  // The grace has not passed, unless this test was held up that long.
  const bool over = drain.over();
  EXPECT_TRUE(!over || Context::Clock::now() >= drain.deadline());
}

TEST(DrainTest, IsOverWhenNothingIsToCome) {
  Drain drain;
  drain.Abandon();
  EXPECT_TRUE(drain.over());
}

TEST(DrainTest, ABacklogRenewsTheLimitATrickleDoesNot) {
  Drain trickle;
  const auto begin = Context::Clock::now();
  for (int chunk = 0; chunk < 100; ++chunk) trickle.Progress(1);
  EXPECT_LE(trickle.deadline(), begin + Drain::kLimit);
  Drain backlog;
  const auto before = backlog.deadline();
  backlog.Progress(Drain::kLargeChunk);
  EXPECT_GE(backlog.deadline(), before);
}

}  // namespace
}  // namespace husk::sandbox
