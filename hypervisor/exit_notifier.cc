#include "hypervisor/exit_notifier.h"

#include <utility>

namespace husk::hypervisor {

void ExitNotifier::SetExit(VmExit exit) {
  const MutexLock lock(mutex_);
  if (!exit_) exit_ = std::move(exit);
}

void ExitNotifier::SetCallback(Callback callback) {
  const MutexLock lock(mutex_);
  callback_ = std::move(callback);
}

void ExitNotifier::Deliver() {
  Callback callback;
  VmExit exit;
  {
    const MutexLock lock(mutex_);
    if (!exit_ || !callback_) return;
    callback = std::exchange(callback_, nullptr);
    exit = *exit_;
    running_on_ = std::this_thread::get_id();
  }
  callback(exit);
  callback = nullptr;  // what it holds must be gone, too, before Detach returns
  const MutexLock lock(mutex_);
  running_on_ = std::thread::id();
  returned_.NotifyAll();
}

void ExitNotifier::Detach() {
  const MutexLock lock(mutex_);
  callback_ = nullptr;
  while (running_on_ != std::thread::id() && running_on_ != std::this_thread::get_id()) returned_.Wait(mutex_);
}

std::optional<VmExit> ExitNotifier::exit() const {
  const MutexLock lock(mutex_);
  return exit_;
}

}  // namespace husk::hypervisor
