#include "cri/streaming/stream_roles.h"

#include <gtest/gtest.h>

namespace husk::cri {
namespace {

WireHeaders Type(const std::string& type) {
  return {{"streamtype", type}};
}

TEST(StreamRolesTest, SpdyClientsOpenWhatTheyAskedFor) {
  StreamRoles roles({.standard_input = true, .standard_output = true, .standard_error = true},
                    {.json_status = true, .resize = true});
  EXPECT_TRUE(roles.Open(1, Type("error")));
  EXPECT_TRUE(roles.Open(3, Type("stdin")));
  EXPECT_FALSE(roles.complete());
  EXPECT_EQ(roles.missing(), "stdout, stderr");
  EXPECT_TRUE(roles.Open(5, Type("stdout")));
  EXPECT_TRUE(roles.Open(7, Type("stderr")));
  EXPECT_TRUE(roles.complete());
  EXPECT_EQ(roles.RoleOf(3), StreamRole::kInput);
  EXPECT_EQ(roles.StreamOf(StreamRole::kStatus), WireStream{1});
  EXPECT_FALSE(roles.RoleOf(9));
}

TEST(StreamRolesTest, OtherStreamsAreRefused) {
  StreamRoles roles({.standard_output = true}, {.resize = true});
  EXPECT_FALSE(roles.Open(1, {}));
  EXPECT_FALSE(roles.Open(3, Type("data")));
  EXPECT_FALSE(roles.Open(5, Type("stdin")));
  EXPECT_FALSE(roles.Open(7, Type("resize")));
  EXPECT_TRUE(roles.Open(9, Type("stdout")));
  EXPECT_FALSE(roles.Open(11, Type("stdout")));
}

TEST(StreamRolesTest, ATerminalHasASizeAndNoErrorOutput) {
  StreamRoles roles({.tty = true, .standard_output = true, .standard_error = true}, {.resize = true});
  EXPECT_EQ(roles.missing(), "stdout, error, resize");
  StreamRoles old({.tty = true, .standard_output = true}, {});
  EXPECT_EQ(old.missing(), "stdout, error");
}

TEST(StreamRolesTest, ChannelsAreThereFromTheBeginning) {
  const StreamRoles roles({.tty = true, .standard_input = true, .standard_output = true},
                          {.websocket = true, .resize = true});
  EXPECT_TRUE(roles.complete());
  EXPECT_EQ(roles.RoleOf(0), StreamRole::kInput);
  EXPECT_EQ(roles.RoleOf(1), StreamRole::kOutput);
  EXPECT_FALSE(roles.RoleOf(2));
  EXPECT_EQ(roles.StreamOf(StreamRole::kStatus), WireStream{3});
  EXPECT_EQ(roles.RoleOf(4), StreamRole::kResize);
  EXPECT_FALSE(roles.RoleOf(255));
}

TEST(SizeReaderTest, MessagesHoweverTheyAreCut) {
  SizeReader reader;
  EXPECT_FALSE(reader.Take("{\"Width\":8"));
  const auto size = reader.Take("0,\"Height\":24}\n");
  ASSERT_TRUE(size);
  EXPECT_EQ(size->columns, 80U);
  EXPECT_EQ(size->rows, 24U);
}

TEST(SizeReaderTest, TheLastOfSeveralCounts) {
  SizeReader reader;
  const auto size = reader.Take("{\"Width\":1,\"Height\":2}{\"Width\":3,\"Height\":4}\n{\"Wid");
  ASSERT_TRUE(size);
  EXPECT_EQ(size->columns, 3U);
}

TEST(SizeReaderTest, WhatIsNoSizeIsPassedOver) {
  SizeReader reader;
  for (const std::string text : {"}", "{}", "{\"Width\":-1,\"Height\":2}", "{\"Width\":70000,\"Height\":2}",
                                 "{\"Width\":\"1\",\"Height\":2}", "[1]}", "\xff}"}) {
    EXPECT_FALSE(reader.Take(text)) << text;
  }
  EXPECT_FALSE(reader.Take(std::string(1 << 20, 'x')));
  EXPECT_FALSE(reader.Take("}"));
  EXPECT_TRUE(reader.Take("{\"Width\":1,\"Height\":2}"));
}

}  // namespace
}  // namespace husk::cri
