// The other end of a process's standard streams: a client who watches and types.
#ifndef HUSK_SANDBOX_CLIENT_STREAMS_H_
#define HUSK_SANDBOX_CLIENT_STREAMS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"

namespace husk::sandbox {

enum class OutputKind { kStandardOutput, kStandardError };

struct TerminalSize {
  std::uint32_t columns = 0;
  std::uint32_t rows = 0;
};

// What a client wants to run, and which of its streams it wants to have.
struct ExecOptions {
  std::vector<std::string> command;
  bool tty = false;  // standard error comes with standard output then
  bool standard_input = false;
  bool standard_output = false;
  bool standard_error = false;
};

// Which streams of a running container a client wants to have.
struct AttachOptions {
  bool standard_input = false;
  bool standard_output = false;
  bool standard_error = false;
};

// Implemented by who has the connection, called by the runtime. Each method may wait for the client, until the context
// ends (CANCELLED or DEADLINE_EXCEEDED). Thread safe: one thread a method.
class ClientStreams {
 public:
  virtual ~ClientStreams() = default;

  // At least one byte of what the client has typed, at most 1 MiB; empty: nothing more will come.
  virtual StatusOr<std::string> ReadInput(const Context& context) = 0;
  // Nobody reads input any more: what the client still sends is thrown away.
  virtual void IgnoreInput() = 0;
  // Returns when the bytes are on their way; a client that does not read makes it wait.
  virtual Status Write(const Context& context, OutputKind kind, std::string_view bytes) = 0;
  // The client's size when it is not the one told last.
  virtual StatusOr<TerminalSize> NextSize(const Context& context) = 0;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_CLIENT_STREAMS_H_
