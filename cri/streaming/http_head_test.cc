#include "cri/streaming/http_head.h"

#include <gtest/gtest.h>

namespace husk::cri {
namespace {

TEST(HttpHeadTest, BytesBehindTheHeadAreNotLost) {
  std::string bytes = "POST /exec/token HTTP/1.1\r\nHost: a\r\nX-Twice: 1\r\nX-Twice: 2, 3\r\n\r\n\x80\x03\r\n\r\nmore";
  const auto head = TakeHttpHead(&bytes);
  ASSERT_TRUE(head.ok()) << head.status();
  ASSERT_TRUE(head->has_value());
  EXPECT_EQ((*head)->method, "POST");
  EXPECT_EQ((*head)->target, "/exec/token");
  EXPECT_EQ((*head)->Values("x-twice"), (std::vector<std::string>{"1", "2", "3"}));
  EXPECT_EQ(bytes, "\x80\x03\r\n\r\nmore");
}

TEST(HttpHeadTest, WaitsForTheWholeHead) {
  std::string bytes = "GET / HTTP/1.1\r\nHost: a\r\n";
  const auto head = TakeHttpHead(&bytes);
  ASSERT_TRUE(head.ok());
  EXPECT_FALSE(head->has_value());
  EXPECT_EQ(bytes, "GET / HTTP/1.1\r\nHost: a\r\n");
}

TEST(HttpHeadTest, WhatIsNoHttpIsRefused) {
  for (const std::string text : {"hello\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/2.0\r\n\r\n",
                                 "GET / HTTP/1.1\r\nno colon\r\n\r\n", "\x16\x03\x01\r\n\r\n", "\r\n\r\n"}) {
    std::string bytes = text;
    EXPECT_TRUE(absl::IsInvalidArgument(TakeHttpHead(&bytes).status())) << text;
  }
}

TEST(HttpHeadTest, ALongHeadIsRefused) {
  std::string endless(kMaximumHttpHead + 1, 'a');
  EXPECT_TRUE(absl::IsResourceExhausted(TakeHttpHead(&endless).status()));
  std::string whole = "GET / HTTP/1.1\r\nA: " + std::string(kMaximumHttpHead, 'a') + "\r\n\r\n";
  EXPECT_TRUE(absl::IsResourceExhausted(TakeHttpHead(&whole).status()));
}

}  // namespace
}  // namespace husk::cri
