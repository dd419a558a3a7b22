#include "cri/streaming/final_status.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace husk::cri {
namespace {

TEST(FinalStatusTest, Success) {
  EXPECT_EQ(nlohmann::json::parse(FinalStatus(0, true))["status"], "Success");
  EXPECT_EQ(FinalStatus(0, false), "");
}

TEST(FinalStatusTest, AnExitCodeHasAReasonOfItsOwn) {
  const auto status = nlohmann::json::parse(FinalStatus(42, true));
  EXPECT_EQ(status["status"], "Failure");
  EXPECT_EQ(status["reason"], "NonZeroExitCode");
  EXPECT_EQ(status["details"]["causes"][0]["reason"], "ExitCode");
  EXPECT_EQ(status["details"]["causes"][0]["message"], "42");
  EXPECT_EQ(FinalStatus(42, false), "the command ended with exit code 42");
}

TEST(FinalStatusTest, OtherFailuresAreToldWhateverTheirBytes) {
  const auto status = nlohmann::json::parse(FinalStatus(absl::NotFoundError("no program \xff"), true));
  EXPECT_EQ(status["status"], "Failure");
  EXPECT_EQ(status["reason"], "InternalError");
  EXPECT_EQ(status["message"], "no program \xef\xbf\xbd");
  EXPECT_EQ(FinalStatus(absl::NotFoundError("no program"), false), "no program");
}

}  // namespace
}  // namespace husk::cri
