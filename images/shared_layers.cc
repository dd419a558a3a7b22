#include "images/shared_layers.h"

#include <algorithm>
#include <chrono>
#include <stop_token>

namespace husk::images {

Status SharedLayers::Ensure(const Context& context, const std::string& diff_id,
                            const std::function<StatusOr<bool>()>& present, const std::function<Status()>& fetch,
                            const std::function<void()>& wait) {
  // Made while the mutex is free: it may run at once, on this thread.
  const std::stop_callback wake(context.stop_token(), [this] {
    const MutexLock lock(mutex_);
    changed_.NotifyAll();
  });
  bool waiting = false;
  while (true) {
    HUSK_RETURN_IF_ERROR(context.Check());
    {
      const MutexLock lock(mutex_);
      if (in_flight_.contains(diff_id)) {
        if (waiting) {
          // Far deadlines overflow some clocks; waking up once an hour costs nothing.
          const auto latest = Context::Clock::now() + std::chrono::hours(1);
          changed_.WaitUntil(mutex_, std::min(latest, context.deadline()));
          continue;
        }
      } else {
        in_flight_.insert(diff_id);
        break;
      }
    }
    waiting = true;
    wait();
  }
  const StatusOr<bool> there = present();
  const Status status = !there.ok() ? there.status() : *there ? absl::OkStatus() : fetch();
  const MutexLock lock(mutex_);
  in_flight_.erase(diff_id);
  changed_.NotifyAll();
  return status;
}

}  // namespace husk::images
