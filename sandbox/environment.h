// What every operation works with.
#ifndef HUSK_SANDBOX_ENVIRONMENT_H_
#define HUSK_SANDBOX_ENVIRONMENT_H_

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "agent/common/mutex.h"
#include "sandbox/event_hub.h"
#include "sandbox/host/cgroup.h"
#include "sandbox/host/scratch_disk.h"
#include "sandbox/observer.h"
#include "sandbox/paths.h"
#include "sandbox/pod_monitor.h"
#include "sandbox/runtime.h"
#include "sandbox/store/store.h"
#include "sandbox/waiting.h"

namespace husk::sandbox {

// Ends of VMs, on their way from hypervisor/'s threads, which must not be held up, to the runtime's own. Thread safe.
class VmEnds {
 public:
  struct End {
    std::string pod_id;
    std::string reason;
  };
  void Add(End end) {
    const MutexLock lock(mutex_);
    queue_.push_back(std::move(end));
    changed_.NotifyAll();
  }
  // Waits for the next one; none after Close.
  std::optional<End> Next() {
    const MutexLock lock(mutex_);
    while (queue_.empty() && !closed_) changed_.Wait(mutex_);
    if (closed_) return std::nullopt;
    End end = std::move(queue_.front());
    queue_.pop_front();
    return end;
  }
  void Close() {
    const MutexLock lock(mutex_);
    closed_ = true;
    changed_.NotifyAll();
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  std::deque<End> queue_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

// Everything in it is thread safe, and outlives the operations.
struct Environment {
  RuntimeOptions options;  // with the host's limits filled in
  Paths paths;
  RuntimeParts parts;  // all of them set
  std::unique_ptr<HostCgroups> own_cgroups;
  std::unique_ptr<EventHub> own_events;
  std::unique_ptr<Observer> own_observer;
  std::unique_ptr<ScratchDisks> scratch_disks;
  std::unique_ptr<Store> store;
  std::shared_ptr<VmEnds> vm_ends;
  std::unique_ptr<Places> boots;  // VMs that may boot at once
  // Have ConvergePod called for this pod until it succeeds. Returns at once.
  std::function<void(const std::string& pod_id)> owe_resize;
  // The pod's guest has taken or given back memory, perhaps when nobody waited for it any more. Returns at once.
  std::function<void(const std::string& pod_id)> tell_size;
  // What the pod's guest says of its memory. Returns at once.
  std::function<void(const std::string& pod_id, const MemoryNews& news)> tell_memory;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_ENVIRONMENT_H_
