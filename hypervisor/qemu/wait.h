// Waiting on a condition variable for as long as a Context lasts.
#ifndef HUSK_HYPERVISOR_QEMU_WAIT_H_
#define HUSK_HYPERVISOR_QEMU_WAIT_H_

#include <stop_token>

#include "agent/common/context.h"
#include "agent/common/mutex.h"

namespace husk::hypervisor {

// Wakes the waiters of `condition` when the context's stop token fires. To be made before the mutex is locked: a token
// that has fired already locks it at once.
class WakeOnStop {
 public:
  WakeOnStop(const Context& context, Mutex& mutex, ConditionVariable& condition)
      : callback_(context.stop_token(), Wake{&mutex, &condition}) {}

 private:
  struct Wake {
    Mutex* mutex;
    ConditionVariable* condition;
    void operator()() const {
      const MutexLock lock(*mutex);
      condition->NotifyAll();
    }
  };
  std::stop_callback<Wake> callback_;
};

// Waits once, or returns the context's error. Loop over it, with a WakeOnStop alive.
inline Status WaitOnce(const Context& context, Mutex& mutex, ConditionVariable& condition)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  HUSK_RETURN_IF_ERROR(context.Check());
  if (context.deadline() == Context::Clock::time_point::max()) {
    condition.Wait(mutex);
  } else {
    condition.WaitUntil(mutex, context.deadline());
  }
  return absl::OkStatus();
}

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_WAIT_H_
