#include "cri/huskd/shutdown_signals.h"

#include <poll.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <utility>

namespace husk::cri {

StatusOr<std::unique_ptr<ShutdownSignals>> ShutdownSignals::Install() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  if (const int error = pthread_sigmask(SIG_BLOCK, &signals, nullptr); error != 0) {
    return ErrnoStatus(error, "block SIGTERM");
  }
  UniqueFd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC));
  if (!signal_fd.valid()) return ErrnoStatus(errno, "signalfd");
  UniqueFd quit(eventfd(0, EFD_CLOEXEC));
  if (!quit.valid()) return ErrnoStatus(errno, "eventfd");
  return std::unique_ptr<ShutdownSignals>(new ShutdownSignals(std::move(signal_fd), std::move(quit)));
}

ShutdownSignals::ShutdownSignals(UniqueFd signals, UniqueFd quit)
    : signals_(std::move(signals)), quit_(std::move(quit)), watcher_([this] { Watch(); }) {}

ShutdownSignals::~ShutdownSignals() {
  const std::uint64_t one = 1;
  // The only write of this event: it cannot fail.
  [[maybe_unused]] const ssize_t written = write(quit_.get(), &one, sizeof one);
  watcher_.join();
}

void ShutdownSignals::Watch() {
  for (;;) {
    pollfd fds[] = {{.fd = signals_.get(), .events = POLLIN, .revents = 0},
                    {.fd = quit_.get(), .events = POLLIN, .revents = 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) return;
    signalfd_siginfo received{};
    if (read(signals_.get(), &received, sizeof received) != sizeof received) continue;
    spdlog::info("signal {} received: stopping; pods go on running", received.ssi_signo);
    stop_.request_stop();
  }
}

}  // namespace husk::cri
