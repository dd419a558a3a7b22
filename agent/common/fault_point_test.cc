#include "agent/common/fault_point.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <set>

namespace husk {
namespace {

// The environment is read once a process, so each case runs in a process of its own.
void ArmAndPass(const char* armed, const char* passed) {
  setenv("HUSK_FAULT_POINT", armed, 1);  // NOLINT(concurrency-mt-unsafe): a child with one thread
  FaultPoint(passed);
  std::_Exit(0);
}

TEST(FaultPointDeathTest, KillsTheProcessAtTheArmedPointOnly) {
  EXPECT_EXIT(ArmAndPass("run_pod.recorded", "run_pod.recorded"), testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT(ArmAndPass("run_pod.recorded", "run_pod.vm_started"), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(ArmAndPass("", "run_pod.recorded"), testing::ExitedWithCode(0), "");
}

TEST(FaultPointDeathTest, APointThatTheListForgotIsABug) {
  EXPECT_EXIT(ArmAndPass("run_pod.recorded", "no.such.point"), testing::KilledBySignal(SIGABRT), "");
}

TEST(FaultPoint, NamesAreUnique) {
  const std::set<std::string> unique(FaultPoints().begin(), FaultPoints().end());
  EXPECT_EQ(unique.size(), FaultPoints().size());
}

}  // namespace
}  // namespace husk
