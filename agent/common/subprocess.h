// Runs a program to its end: CNI plugins, mke2fs, crun.
#ifndef HUSK_AGENT_COMMON_SUBPROCESS_H_
#define HUSK_AGENT_COMMON_SUBPROCESS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "agent/common/context.h"

namespace husk {

struct SubprocessOptions {
  // argv[0] is the path of the program; PATH is not searched.
  std::vector<std::string> argv;
  // "NAME=value"; the caller's own environment if absent.
  std::optional<std::vector<std::string>> environment;
  // Written to its standard input, which is then closed.
  std::string standard_input;
  // What it prints beyond these many bytes is read and dropped, so that it never blocks. Bytes.
  std::size_t maximum_stdout = std::size_t{1} << 20;
  std::size_t maximum_stderr = std::size_t{64} << 10;
};

struct SubprocessResult {
  // As a shell shows it: the exit code, or 128 + the signal that ended it.
  int exit_code = 0;
  std::string standard_output;
  std::string standard_error;
  bool stdout_truncated = false;
};

// Blocks until the program has ended and its pipes are closed, or a second after it ended if a grandchild keeps them
// open. When the context ends first its whole process group is killed and the context's error returned. The child
// inherits no descriptor but its three pipes. A non-zero exit code is not an error here. Thread safe.
//
// Not for PID 1: it waits for its own child, and the guest agent's reaper would take the child's status away.
StatusOr<SubprocessResult> RunSubprocess(const Context& context, const SubprocessOptions& options);

}  // namespace husk

#endif  // HUSK_AGENT_COMMON_SUBPROCESS_H_
