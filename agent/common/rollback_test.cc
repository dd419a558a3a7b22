#include "agent/common/rollback.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace husk {
namespace {

using testing::ElementsAre;

TEST(Rollback, UndoesInReverseUnderAFreshDeadlineAndReportsWhatFails) {
  std::vector<std::string> undone;
  std::vector<std::string> failed;
  {
    const Context cancelled = Context::Background().WithTimeout(std::chrono::seconds(0));
    Rollback rollback(cancelled, std::chrono::hours(1),
                      [&](const std::string& step, const Status&) { failed.push_back(step); });
    rollback.Add("netns", [&](const Context& context) {
      EXPECT_TRUE(context.Check().ok());
      undone.emplace_back("netns");
      return absl::OkStatus();
    });
    rollback.Add("tap", [&](const Context&) {
      undone.emplace_back("tap");
      return absl::InternalError("busy");
    });
  }
  EXPECT_THAT(undone, ElementsAre("tap", "netns"));
  EXPECT_THAT(failed, ElementsAre("tap"));
}

TEST(Rollback, CommitKeepsEverything) {
  bool undone = false;
  {
    Rollback rollback(Context::Background(), std::chrono::seconds(1), nullptr);
    rollback.Add("step", [&](const Context&) {
      undone = true;
      return absl::OkStatus();
    });
    rollback.Commit();
  }
  EXPECT_FALSE(undone);
}

}  // namespace
}  // namespace husk
