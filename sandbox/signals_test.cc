#include "sandbox/signals.h"

#include <gtest/gtest.h>

namespace husk::sandbox {
namespace {

TEST(SignalsTest, KnowsNamesAndNumbers) {
  EXPECT_EQ(*ParseSignal("SIGTERM"), 15U);
  EXPECT_EQ(*ParseSignal("term"), 15U);
  EXPECT_EQ(*ParseSignal("9"), 9U);
  EXPECT_EQ(*ParseSignal("SIGRTMIN"), 34U);
  EXPECT_EQ(*ParseSignal("SIGRTMIN+3"), 37U);
  EXPECT_EQ(*ParseSignal("RTMAX-2"), 62U);
  EXPECT_EQ(*ParseSignal("64"), 64U);
}

TEST(SignalsTest, RefusesTheRest) {
  for (const char* name : {"", "SIG", "0", "65", "-1", "4294967311", "SIGRTMIN+31", "SIGRTMIN+", "SIGFOO", "15 ; rm"}) {
    EXPECT_EQ(ParseSignal(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

}  // namespace
}  // namespace husk::sandbox
