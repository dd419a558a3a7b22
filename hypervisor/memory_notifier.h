// Vm::OnPluggedMemory's promise, kept in one place for all implementations.
#ifndef HUSK_HYPERVISOR_MEMORY_NOTIFIER_H_
#define HUSK_HYPERVISOR_MEMORY_NOTIFIER_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "agent/common/mutex.h"

namespace husk::hypervisor {

// Thread safe.
class MemoryNotifier {
 public:
  using Callback = std::function<void(std::uint64_t bytes)>;

  // Null: nobody is told from now on, and nobody is being told any more.
  void SetCallback(Callback callback) {
    const MutexLock lock(mutex_);
    callback_ = std::move(callback);
  }
  // On the implementation's thread.
  void Tell(std::uint64_t bytes) const {
    const MutexLock lock(mutex_);
    if (callback_) callback_(bytes);
  }

 private:
  mutable Mutex mutex_;
  Callback callback_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_MEMORY_NOTIFIER_H_
