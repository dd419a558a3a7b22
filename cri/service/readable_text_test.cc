#include "cri/service/readable_text.h"

#include <gtest/gtest.h>

#include <string>

namespace husk::cri {
namespace {

TEST(ReadableText, PlainTextStays) {
  EXPECT_EQ(ReadableText(""), "");
  EXPECT_EQ(ReadableText("a \"quoted\" \\ path/to: 100%"), "a \"quoted\" \\ path/to: 100%");
  EXPECT_EQ(ReadableText("Grüße, 世界 🙂"), "Grüße, 世界 🙂");
}

TEST(ReadableText, ControlCharactersShow) {
  EXPECT_EQ(ReadableText(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(ReadableText("one\ntwo\r\t\x1b[31m\x7f"), "one\\ntwo\\x0d\\x09\\x1b[31m\\x7f");
  EXPECT_EQ(ReadableText("\xc2\x85"), "\\xc2\\x85") << "a line break of Unicode's";
}

TEST(ReadableText, WhatIsNotUtf8Shows) {
  EXPECT_EQ(ReadableText("\xff\xfe"), "\\xff\\xfe");
  EXPECT_EQ(ReadableText("\xc3"), "\\xc3") << "cut off";
  EXPECT_EQ(ReadableText("\xc3(x"), "\\xc3(x");
  EXPECT_EQ(ReadableText("\xc0\xaf"), "\\xc0\\xaf") << "a slash, longer than it need be";
  EXPECT_EQ(ReadableText("\xe0\x80\xaf"), "\\xe0\\x80\\xaf");
  EXPECT_EQ(ReadableText("\xed\xa0\x80"), "\\xed\\xa0\\x80") << "a surrogate";
  EXPECT_EQ(ReadableText("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80") << "beyond Unicode";
}

TEST(ReadableText, CharactersThatDeceiveShow) {
  EXPECT_EQ(ReadableText("user\u202etxt.exe"), "user\\xe2\\x80\\xaetxt.exe") << "right to left";
  EXPECT_EQ(ReadableText("a\u200bb"), "a\\xe2\\x80\\x8bb") << "of no width";
  EXPECT_EQ(ReadableText("\ufeffa"), "\\xef\\xbb\\xbfa");
}

}  // namespace
}  // namespace husk::cri
