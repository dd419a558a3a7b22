// Vm::OnExit's promise, kept in one place for all implementations.
#ifndef HUSK_HYPERVISOR_EXIT_NOTIFIER_H_
#define HUSK_HYPERVISOR_EXIT_NOTIFIER_H_

#include <functional>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "agent/common/mutex.h"
#include "hypervisor/hypervisor.h"

namespace husk::hypervisor {

// Brings one VM's exit and the callback that waits for it together, whichever comes first. Thread safe.
class ExitNotifier {
 public:
  using Callback = std::function<void(const VmExit&)>;

  // The VM has ended. The first end counts.
  void SetExit(VmExit exit);
  // Replaces the callback. Nothing is called here: call Deliver on the implementation's thread afterwards.
  void SetCallback(Callback callback);
  // Calls the callback if there is one and the VM has ended. To be called on the implementation's thread only.
  void Deliver();
  // Drops the callback, and waits for its end if it is running on another thread: it is never called after this.
  void Detach();

  [[nodiscard]] std::optional<VmExit> exit() const;

 private:
  mutable Mutex mutex_;
  ConditionVariable returned_;
  std::optional<VmExit> exit_ ABSL_GUARDED_BY(mutex_);
  Callback callback_ ABSL_GUARDED_BY(mutex_);
  std::thread::id running_on_ ABSL_GUARDED_BY(mutex_);  // no thread's id while none runs
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_EXIT_NOTIFIER_H_
