// The user's terminal while it belongs to a program in a container.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_TERMINAL_H_
#define HUSK_CRI_HUSKCTL_STREAMS_TERMINAL_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "agent/common/status.h"

namespace husk::huskctl {

struct TerminalSize {
  std::uint16_t width = 0;  // in characters
  std::uint16_t height = 0;
};

// Nothing if `descriptor` is no terminal, or one that knows no size.
std::optional<TerminalSize> SizeOfTerminal(int descriptor);

// Raw from Enter to the destructor, or to a signal that ends the process: SIGHUP, SIGINT, SIGPIPE, SIGQUIT and SIGTERM
// restore the terminal first, whatever the threads are doing, and then end the process as they would have. One at a
// time in a process.
class RawTerminal {
 public:
  // FAILED_PRECONDITION if `descriptor`, which stays the caller's and open, is no terminal.
  static StatusOr<std::unique_ptr<RawTerminal>> Enter(int descriptor);
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  ~RawTerminal();

 private:
  RawTerminal() = default;
};

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_TERMINAL_H_
