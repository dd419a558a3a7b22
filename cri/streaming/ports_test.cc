#include "cri/streaming/ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace husk::cri {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TEST(PortsTest, StrFourPortsThatAreNone) {
  EXPECT_EQ(ParsePort("1").value(), 1);
  EXPECT_EQ(ParsePort("65535").value(), 65535);
  for (const char* text : {"", "0", "65536", "99999", "100000", "-1", "+80", " 80", "80 ", "0x50", "http", "8\x01"}) {
    const auto port = ParsePort(text);
    ASSERT_FALSE(port.ok()) << text;
    EXPECT_THAT(std::string(port.status().message()), StartsWith("port: expected 1 to 65535, not \"")) << text;
  }
}

TEST(PortsTest, OfAQuery) {
  EXPECT_THAT(PortsOfQuery("/portforward/t").value(), IsEmpty());
  EXPECT_THAT(PortsOfQuery("/portforward/t?other=1").value(), IsEmpty());
  EXPECT_THAT(PortsOfQuery("/portforward/t?port=80&x=y&port=443&port=80").value(), ElementsAre(80, 443, 80));
  EXPECT_THAT(PortsOfQuery("/t?ports=80,81").value(), ElementsAre(80, 81));
  EXPECT_THAT(PortsOfQuery("/t?ports=80%2C81").value(), ElementsAre(80, 81));
  EXPECT_FALSE(PortsOfQuery("/t?port").ok());
  EXPECT_FALSE(PortsOfQuery("/t?ports=80,").ok());
  EXPECT_FALSE(PortsOfQuery("/t?port=80&port=0").ok());
}

}  // namespace
}  // namespace husk::cri
