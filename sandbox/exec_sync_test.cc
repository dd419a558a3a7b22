#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <thread>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using ::testing::IsEmpty;

constexpr std::size_t kLimit = std::size_t{16} << 20;

class ExecSyncTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
    container_ = RunContainer(pod_);
  }
  void Program(const agent::FakeProgram& program) {
    Guest(pod_).SetExecProgram([program](const agent::v1::ExecRequest&) { return program; });
  }
  StatusOr<ExecResult> Exec(nanoseconds timeout = nanoseconds(0)) {
    return runtime_->ExecSync(context_, container_, {"cmd", "argument"}, timeout);
  }
  std::string OnlyExec() {
    EXPECT_TRUE(Eventually([&] { return Guest(pod_).exec_ids(container_).size() == 1; }));
    return Guest(pod_).exec_ids(container_).at(0);
  }
  std::string pod_;
  std::string container_;
};

TEST_F(ExecSyncTest, GivesOutputAndExitCode) {
  Program({.standard_output = "out", .standard_error = "err", .exit_code = 42});
  const auto result = Exec();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->standard_output, "out");
  EXPECT_EQ(result->standard_error, "err");
  EXPECT_EQ(result->exit_code, 42);
  EXPECT_THAT(Guest(pod_).exec_ids(container_), IsEmpty());
}

TEST_F(ExecSyncTest, KillsAtTheTimeout) {
  Program({.standard_output = "working...", .ignored_signals = {SIGTERM}});
  const auto result = Exec(milliseconds(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(result.status())) << result.status();
  EXPECT_THAT(Guest(pod_).exec_ids(container_), IsEmpty());
  EXPECT_EQ(Guest(pod_).call_count("SignalExec"), 1);
}

TEST_F(ExecSyncTest, CutsEachStreamAndDrainsTheRest) {
  Program({.standard_output = std::string(kLimit + 5'000'000, 'o'), .standard_error = "e", .exit_code = 0});
  const auto result = Exec();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->standard_output.size(), kLimit);
  EXPECT_EQ(result->standard_error, "e");
}

TEST_F(ExecSyncTest, AChildThatKeepsThePipeOpenDoesNotHangIt) {
  Program({.standard_output = "parent"});
  std::thread parent([&] { EXPECT_TRUE(Guest(pod_).Exit(container_, OnlyExec(), 0, false, /*close_streams=*/false)); });
  const auto result = Exec();
  parent.join();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->standard_output, "parent");
}

TEST_F(ExecSyncTest, AProgramThatIsNotThereIsNotFound) {
  Program({.start_error = "no such program"});
  EXPECT_TRUE(absl::IsNotFound(Exec().status()));
}

TEST_F(ExecSyncTest, NeedsARunningContainerAndACommand) {
  EXPECT_EQ(runtime_->ExecSync(context_, container_, {}, nanoseconds(0)).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(Guest(pod_).Exit(container_, "", 0));
  ASSERT_TRUE(AwaitExit(container_));
  EXPECT_EQ(Exec().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ExecSyncTest, AStopOfThePodEndsIt) {
  Program({});
  std::thread caller([&] { EXPECT_EQ(Exec().status().code(), absl::StatusCode::kAborted); });
  OnlyExec();
  EXPECT_TRUE(runtime_->StopPod(context_, pod_).ok());
  caller.join();
}

TEST_F(ExecSyncTest, TheEndOfTheVmEndsIt) {
  Program({});
  std::thread caller([&] { EXPECT_TRUE(absl::IsUnavailable(Exec().status())); });
  OnlyExec();
  EXPECT_TRUE(machine_.KillVm(pod_));
  caller.join();
}

}  // namespace
}  // namespace husk::sandbox
