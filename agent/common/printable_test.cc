#include "agent/common/printable.h"

#include <gtest/gtest.h>

namespace husk {
namespace {

TEST(Printable, ShowsEveryByteInAscii) {
  EXPECT_EQ(Printable("plain ~", 100), "plain ~");
  EXPECT_EQ(Printable("a\n\tb\r", 100), "a  b ");
  EXPECT_EQ(Printable(std::string_view("\0\x1b[1m\x7f\xff", 7), 100), "\\x00\\x1b[1m\\x7f\\xff");
}

TEST(Printable, CutsWhatIsLong) {
  EXPECT_EQ(Printable("abcdef", 6), "abcdef");
  EXPECT_EQ(Printable("abcdef", 5), "abcde...");
}

}  // namespace
}  // namespace husk
