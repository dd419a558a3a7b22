#include "agent/common/status.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace husk {
namespace {

Status Fail(bool annotate) {
  if (annotate) HUSK_RETURN_IF_ERROR_DOING(absl::NotFoundError("no such disk"), "attach disk");
  HUSK_RETURN_IF_ERROR(absl::NotFoundError("no such disk"));
  return absl::OkStatus();
}

StatusOr<int> PlusOne(const StatusOr<int>& input) {
  HUSK_ASSIGN_OR_RETURN_DOING(const int value, input, "count");
  return value + 1;
}

TEST(Status, AnnotateKeepsTheCodeAndSaysWhatWasDone) {
  EXPECT_EQ(Fail(true), absl::NotFoundError("attach disk: no such disk"));
  EXPECT_EQ(Fail(false), absl::NotFoundError("no such disk"));
  EXPECT_TRUE(Annotate(absl::OkStatus(), "nothing").ok());
}

TEST(Status, ErrnoBecomesItsCanonicalCode) {
  const Status status = ErrnoStatus(ENOENT, "open /x");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "open /x: No such file or directory");
}

TEST(Status, AssignOrReturn) {
  EXPECT_EQ(*PlusOne(41), 42);
  EXPECT_EQ(PlusOne(absl::InternalError("broken")).status(), absl::InternalError("count: broken"));
}

}  // namespace
}  // namespace husk
