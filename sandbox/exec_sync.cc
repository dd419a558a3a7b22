#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/container_operations.h"
#include "sandbox/execution.h"

namespace husk::sandbox {
namespace {

constexpr std::size_t kMaximumOutput = std::size_t{16} << 20;

// The first kMaximumOutput bytes of a stream.
void Keep(std::string_view bytes, std::string* kept) {
  kept->append(bytes.substr(0, kMaximumOutput - kept->size()));
}

}  // namespace

StatusOr<ExecResult> ExecInContainer(const Context& context, Pod& pod, const std::string& id,
                                     const std::vector<std::string>& command, std::chrono::nanoseconds timeout) {
  if (command.empty()) return absl::InvalidArgumentError("cmd: is empty");
  HUSK_ASSIGN_OR_RETURN(const auto client, ClientOfRunningContainer(pod, id));
  const bool limited = timeout > std::chrono::nanoseconds::zero();
  const Context bounded = limited ? context.WithTimeout(timeout) : context;
  ExecResult result;
  Execution execution(client, id, [&result](OutputKind kind, std::string_view bytes) {
    Keep(bytes, kind == OutputKind::kStandardOutput ? &result.standard_output : &result.standard_error);
    return absl::OkStatus();
  });
  Status done = execution.Start(bounded, {.command = command});
  if (done.ok()) done = execution.Follow(bounded);
  // After a failed start too: its answer may have been lost.
  if (!pod.ended()) execution.CleanUp(context);
  if (done.ok()) {
    result.exit_code = execution.exit_code();
    return result;
  }
  if (absl::IsDeadlineExceeded(done) && limited && context.Check().ok()) {
    return absl::DeadlineExceededError(absl::StrCat(
        "the command did not end within ", std::chrono::ceil<std::chrono::milliseconds>(timeout).count(), " ms"));
  }
  return Annotate(done, absl::StrCat("run a command in container ", id));
}

}  // namespace husk::sandbox
