#include "agent/client/call.h"

#include <algorithm>
#include <chrono>
#include <stop_token>

namespace husk::agent {

void Call::Finish(StatusOr<std::string> outcome) {
  const MutexLock lock(mutex_);
  if (!outcome_) outcome_ = std::move(outcome);
  changed_.NotifyAll();
}

std::optional<StatusOr<std::string>> Call::Wait(const Context& context) {
  // Under the lock: a stop between the waiter's check and its wait must not be missed.
  const auto wake = [this] {
    const MutexLock lock(mutex_);
    changed_.NotifyAll();
  };
  const std::stop_callback on_stop(context.stop_token(), wake);
  const MutexLock lock(mutex_);
  while (!outcome_ && context.Check().ok()) {
    // The wait's own clock cannot hold time_point::max().
    changed_.WaitUntil(mutex_, std::min(context.deadline(), Context::Clock::now() + std::chrono::hours(1)));
  }
  return std::exchange(outcome_, std::nullopt);
}

}  // namespace husk::agent
