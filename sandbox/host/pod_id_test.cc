#include "sandbox/host/pod_id.h"

#include <gtest/gtest.h>

#include <string>

namespace husk::sandbox {
namespace {

TEST(PodId, AcceptsOnlyWhatIsSafeInAPath) {
  EXPECT_TRUE(CheckPodId("4f2a-9").ok());
  EXPECT_TRUE(CheckPodId(std::string(64, 'a')).ok());
  for (const std::string bad : {"", "-a", "a/b", "..", "A", "a b", "a\n"}) EXPECT_FALSE(CheckPodId(bad).ok()) << bad;
  EXPECT_FALSE(CheckPodId(std::string(65, 'a')).ok());
}

}  // namespace
}  // namespace husk::sandbox
