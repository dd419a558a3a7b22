#include "cri/huskctl/streams/terminal.h"

#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

namespace husk::huskctl {
namespace {

constexpr std::array kDeadlySignals = {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};

// What a signal handler needs. Written before the handlers are installed, not touched until they are gone.
struct Saved {
  int descriptor = -1;
  termios mode{};
  std::array<struct sigaction, kDeadlySignals.size()> actions{};
};

Saved& TheSaved() {
  static Saved saved;
  return saved;
}

// The handler's own way to it: a function's static may not be initialised in a handler.
Saved* the_saved = nullptr;

// TCSANOW: output that a stopped terminal does not take must not hold this up.
void Restore(const Saved& saved) {
  tcsetattr(saved.descriptor, TCSANOW, &saved.mode);
}

// All that is called here is async-signal-safe.
extern "C" void RestoreAndDie(int signal) {
  Restore(*the_saved);
  // SA_RESETHAND has brought the default action back; the signal is blocked until this returns.
  raise(signal);
}

void CatchDeadlySignals(Saved& saved) {
  for (std::size_t i = 0; i < kDeadlySignals.size(); ++i) {
    struct sigaction action{};
    action.sa_handler = RestoreAndDie;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigfillset(&action.sa_mask);
    sigaction(kDeadlySignals[i], nullptr, &saved.actions[i]);
    // Under nohup SIGHUP stays ignored.
    if (saved.actions[i].sa_handler != SIG_IGN) sigaction(kDeadlySignals[i], &action, nullptr);
  }
}

}  // namespace

std::optional<TerminalSize> SizeOfTerminal(int descriptor) {
  winsize size{};
  if (ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return std::nullopt;
  return TerminalSize{.width = size.ws_col, .height = size.ws_row};
}

StatusOr<std::unique_ptr<RawTerminal>> RawTerminal::Enter(int descriptor) {
  Saved& saved = TheSaved();
  if (saved.descriptor >= 0) return absl::InternalError("a terminal is raw already");
  if (tcgetattr(descriptor, &saved.mode) != 0) {
    return absl::FailedPreconditionError("standard input is no terminal");
  }
  saved.descriptor = descriptor;
  the_saved = &saved;
  CatchDeadlySignals(saved);
  std::unique_ptr<RawTerminal> terminal(new RawTerminal());
  termios raw = saved.mode;
  cfmakeraw(&raw);
  if (tcsetattr(descriptor, TCSANOW, &raw) != 0) return ErrnoStatus(errno, "set the terminal's mode");
  return terminal;
}

RawTerminal::~RawTerminal() {
  Saved& saved = TheSaved();
  Restore(saved);
  for (std::size_t i = 0; i < kDeadlySignals.size(); ++i) sigaction(kDeadlySignals[i], &saved.actions[i], nullptr);
  saved.descriptor = -1;
}

}  // namespace husk::huskctl
