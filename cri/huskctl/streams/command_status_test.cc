#include "cri/huskctl/streams/command_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace husk::huskctl {
namespace {

using ::testing::HasSubstr;

TEST(CommandStatusTest, SuccessIsZero) {
  EXPECT_EQ(ParseCommandStatus(R"({"metadata":{},"status":"Success"})").value(), 0);
}

TEST(CommandStatusTest, TheExitCodeStandsAmongTheCauses) {
  EXPECT_EQ(ParseCommandStatus(R"({"status":"Failure","reason":"NonZeroExitCode","message":"words",
      "details":{"causes":[7,{"reason":"Other","message":"1"},{"reason":"ExitCode","message":"42"}]}})")
                .value(),
            42);
}

TEST(CommandStatusTest, AnotherFailureIsAnErrorWithItsMessage) {
  const auto failed = ParseCommandStatus(
      R"({"status":"Failure","reason":"InternalError","message":"no such\u0007 program","details":{"causes":[]}})");
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("no such"));
  EXPECT_EQ(std::string(failed.status().message()).find('\x07'), std::string::npos);
  EXPECT_THAT(std::string(ParseCommandStatus(R"({"status":"Failure"})").status().message()), HasSubstr("not say why"));
}

TEST(CommandStatusTest, NonsenseIsRefusedAndShown) {
  for (const char* text : {"", "{", "[]", "\"Success\"", "{}", R"({"status":1})", R"({"status":"Perhaps"})",
                           R"({"status":"Failure","reason":"NonZeroExitCode"})",
                           R"({"status":"Failure","reason":"NonZeroExitCode","details":[]})",
                           R"({"status":"Failure","reason":"NonZeroExitCode","details":{"causes":{}}})",
                           R"({"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[
                                {"reason":"ExitCode","message":"256"},{"reason":"ExitCode","message":"0"},
                                {"reason":"ExitCode","message":"many"},{"reason":"ExitCode","message":3}]}})"}) {
    const auto parsed = ParseCommandStatus(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("final status")) << text;
  }
}

}  // namespace
}  // namespace husk::huskctl
