#include "cri/huskctl/streams/stream_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace husk::huskctl {
namespace {

TEST(StreamUrlTest, WhatHuskdNames) {
  const auto plain = ParseStreamUrl("http://127.0.0.1:41234/exec/token_-A?x=/");
  ASSERT_TRUE(plain.ok());
  EXPECT_FALSE(plain->tls);
  EXPECT_EQ(plain->host, "127.0.0.1");
  EXPECT_EQ(plain->port, "41234");
  EXPECT_EQ(plain->target, "/exec/token_-A?x=/");
  EXPECT_EQ(plain->authority(), "127.0.0.1:41234");

  const auto secure = ParseStreamUrl("https://[::1]:443/attach/t");
  ASSERT_TRUE(secure.ok());
  EXPECT_TRUE(secure->tls);
  EXPECT_EQ(secure->host, "::1");
  EXPECT_EQ(secure->authority(), "[::1]:443");
}

TEST(StreamUrlTest, APortAndAPathMayBeMissing) {
  EXPECT_EQ(ParseStreamUrl("https://node.example").value().port, "443");
  EXPECT_EQ(ParseStreamUrl("http://node.example/x").value().port, "80");
  EXPECT_EQ(ParseStreamUrl("http://[::1]").value().target, "/");
}

TEST(StreamUrlTest, OthersAreRefusedAndShown) {
  for (const char* url : {"", "/exec/x", "ftp://h:1/x", "unix:///run/x", "http://", "http:///x", "http://:80/x",
                          "http://h:/x", "http://h:0/x", "http://h:65536/x", "http://h:8o/x", "http://[::1/x",
                          "http://[::1]80/x", "http://::1:80/x", "http://h:1/a b", "http://h:1/a\r\nX: y"}) {
    const auto parsed = ParseStreamUrl(url);
    ASSERT_FALSE(parsed.ok()) << url;
    EXPECT_THAT(std::string(parsed.status().message()), testing::HasSubstr("nobody can come to"));
    EXPECT_EQ(std::string(parsed.status().message()).find('\n'), std::string::npos);
  }
}

}  // namespace
}  // namespace husk::huskctl
