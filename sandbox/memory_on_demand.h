// Memory for containers that have no limit of it: a VM gets more when its guest runs short, and gives back what it does
// not use. docs/adr/0126-memory-on-demand.md
#ifndef HUSK_SANDBOX_MEMORY_ON_DEMAND_H_
#define HUSK_SANDBOX_MEMORY_ON_DEMAND_H_

#include <functional>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "sandbox/environment.h"
#include "sandbox/pod.h"
#include "sandbox/pod_monitor.h"

namespace husk::sandbox {

// By the one who has the pod's turn. OK where there is nothing to change: every container has a limit, or the VM has
// all that it may have. RESOURCE_EXHAUSTED, and nothing has changed, if it cannot have more.
Status FollowMemoryDemand(Environment& environment, const Context& context, Pod& pod, const MemoryNews& news);

// Threads for what guests say of their memory, so that no guest waits for another: one for each pod that has news, as
// long as it has. Thread safe.
class MemoryNewsWorkers {
 public:
  using Work = std::function<void(const Context& context, const std::string& pod_id, const MemoryNews& news)>;

  explicit MemoryNewsWorkers(Work work) : work_(std::move(work)) {}
  MemoryNewsWorkers(const MemoryNewsWorkers&) = delete;
  MemoryNewsWorkers& operator=(const MemoryNewsWorkers&) = delete;
  ~MemoryNewsWorkers() { Stop(); }

  // Of what comes while a pod's news is worked on the last counts. Returns at once; does nothing after Stop.
  void Tell(const std::string& pod_id, const MemoryNews& news);
  // Ends the contexts of what is under way, and waits for it.
  void Stop();

 private:
  struct Worker {
    std::optional<MemoryNews> next;
    bool ended = false;
    std::thread thread;
  };
  void Run(const std::string& pod_id, Worker& worker, MemoryNews news);
  void JoinEnded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Work work_;
  std::stop_source stop_;  // thread safe by itself
  Mutex mutex_;
  std::map<std::string, Worker> workers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_MEMORY_ON_DEMAND_H_
