#include "agent/common/subprocess.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <thread>

#include "agent/common/unique_fd.h"

namespace husk {
namespace {

SubprocessOptions Shell(std::string script) {
  return {.argv = {"/bin/sh", "-c", std::move(script)}};
}

TEST(Subprocess, GivesBackOutputAndExitCode) {
  SubprocessOptions options = Shell("cat; echo oops >&2; exit 3");
  options.standard_input = "in";
  const auto result = RunSubprocess(Context::Background(), options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->standard_output, "in");
  EXPECT_EQ(result->standard_error, "oops\n");
  EXPECT_EQ(result->exit_code, 3);
}

TEST(Subprocess, ASignalIs128PlusItsNumber) {
  EXPECT_EQ(RunSubprocess(Context::Background(), Shell("kill -9 $$"))->exit_code, 137);
}

TEST(Subprocess, AMissingProgramIsNamed) {
  const auto result = RunSubprocess(Context::Background(), {.argv = {"/nonexistent/plugin"}});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(result.status().message().find("/nonexistent/plugin"), absl::string_view::npos);
}

TEST(Subprocess, OutputBeyondTheLimitIsDroppedAndDoesNotBlock) {
  SubprocessOptions options = Shell("head -c 10000000 /dev/zero");
  options.maximum_stdout = 1000;
  const auto result = RunSubprocess(Context::Background(), options);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->standard_output.size(), 1000U);
  EXPECT_TRUE(result->stdout_truncated);
  EXPECT_EQ(result->exit_code, 0);
}

TEST(Subprocess, InputThatNobodyReadsIsNoError) {
  SubprocessOptions options = Shell("exit 0");
  options.standard_input = std::string(std::size_t{1} << 20, 'x');
  EXPECT_EQ(RunSubprocess(Context::Background(), options)->exit_code, 0);
}

TEST(Subprocess, AGrandchildThatKeepsThePipeOpenDoesNotHangIt) {
  const auto result = RunSubprocess(Context::Background(), Shell("sleep 30 & exit 4"));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->exit_code, 4);
}

TEST(Subprocess, CancelKillsTheWholeFamily) {
  std::stop_source request;
  std::jthread stopper([&] { request.request_stop(); });
  const auto result =
      RunSubprocess(Context::Background().WithStopToken(request.get_token()), Shell("sleep 1000 & sleep 1000"));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
}

TEST(Subprocess, InheritsNoDescriptors) {
  const UniqueFd leaky(open("/dev/null", O_RDONLY));  // NOLINT(android-cloexec-open): on purpose
  ASSERT_TRUE(leaky.valid());
  const auto result = RunSubprocess(Context::Background(), Shell("ls /proc/self/fd | wc -l"));
  // Its three pipes, and the directory that ls reads.
  EXPECT_EQ(result->standard_output, "4\n");
}

}  // namespace
}  // namespace husk
