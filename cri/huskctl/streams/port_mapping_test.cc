#include "cri/huskctl/streams/port_mapping.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace husk::huskctl {
namespace {

TEST(PortMappingTest, TheFormsThatThereAre) {
  for (const auto& [text, local, remote] : {std::tuple("80", 80, 80),
                                            {"8080:80", 8080, 80},
                                            {":80", 0, 80},
                                            {"0:80", 0, 80},
                                            {"65535:65535", 65535, 65535},
                                            {"1:1", 1, 1}}) {
    const auto mapping = ParsePortMapping(text);
    ASSERT_TRUE(mapping.ok()) << text;
    EXPECT_EQ(mapping->local, local) << text;
    EXPECT_EQ(mapping->remote, remote) << text;
  }
}

TEST(PortMappingTest, WhatIsNoPortIsRefusedByItsText) {
  for (const char* text : {"", ":", "0", "80:", "80:0", ":0", "http", "80:http", "65536", "1:65536", "65536:1", "-1",
                           "+80", " 80", "80 ", "1:2:3", "::80", "99999999999999999999", "8\x1b"}) {
    const auto mapping = ParsePortMapping(text);
    ASSERT_FALSE(mapping.ok()) << text;
    EXPECT_EQ(mapping.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(mapping.status().message()), testing::StartsWith("port \"")) << text;
    EXPECT_EQ(std::string(mapping.status().message()).find('\x1b'), std::string::npos);
  }
}

}  // namespace
}  // namespace husk::huskctl
