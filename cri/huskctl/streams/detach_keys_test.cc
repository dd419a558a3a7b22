#include "cri/huskctl/streams/detach_keys.h"

#include <gtest/gtest.h>

namespace husk::huskctl {
namespace {

TEST(DetachKeysTest, OtherKeysGoThrough) {
  DetachKeys keys;
  EXPECT_EQ(keys.Filter("ls -l\r\x11\x03"), "ls -l\r\x11\x03");
  EXPECT_EQ(keys.Filter(""), "");
  EXPECT_FALSE(keys.detached());
}

TEST(DetachKeysTest, TheTwoKeysDetachAndWhatFollowsIsDropped) {
  DetachKeys keys;
  EXPECT_EQ(keys.Filter("a\x10\x11 rm"), "a");
  EXPECT_TRUE(keys.detached());
  EXPECT_EQ(keys.Filter("more"), "");
}

TEST(DetachKeysTest, TheyMayComeInTwoPieces) {
  DetachKeys keys;
  EXPECT_EQ(keys.Filter("a\x10"), "a");
  EXPECT_FALSE(keys.detached());
  EXPECT_EQ(keys.Filter("\x11"), "");
  EXPECT_TRUE(keys.detached());
}

TEST(DetachKeysTest, AHeldKeyComesWithTheNext) {
  DetachKeys keys;
  EXPECT_EQ(keys.Filter("\x10"), "");
  EXPECT_EQ(keys.Filter("x"), "\x10x");
  EXPECT_EQ(keys.Filter("\x10\x10\x10y"), "\x10\x10\x10y");
  EXPECT_EQ(keys.Filter("\x10\x10"), "\x10");
  EXPECT_FALSE(keys.detached());
  // Of two Ctrl-P the second begins the pair.
  EXPECT_EQ(keys.Filter("\x11"), "");
  EXPECT_TRUE(keys.detached());
}

}  // namespace
}  // namespace husk::huskctl
