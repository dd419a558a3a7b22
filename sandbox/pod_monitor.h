// One thread per running pod that waits for what its containers write and for their ends.
#ifndef HUSK_SANDBOX_POD_MONITOR_H_
#define HUSK_SANDBOX_POD_MONITOR_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "sandbox/container_output.h"
#include "sandbox/drain.h"

namespace husk::sandbox {

// How a container's first process ended, as the guest tells it.
struct ProcessExit {
  std::int32_t exit_code = 0;
  bool oom_killed = false;
  bool guest_out_of_memory = false;  // with oom_killed: no limit of the container's own was reached
  std::string start_error;           // not empty: it never ran
  std::int64_t started_at = 0;       // by the guest's clock
  std::int64_t finished_at = 0;      // by the guest's clock
  bool unknown = false;              // the guest does not know the container: its end was lost
};

// What the guest says of its memory, which it may say as often as it likes, true or not.
struct MemoryNews {
  bool shortage = false;          // containers wait for more; else there is more than they use
  std::uint64_t spare_bytes = 0;  // how much
};

// Called on the monitor's thread without locks; must not call the monitor.
struct MonitorHandlers {
  // Once per container, when the output that precedes the end is in the log.
  std::function<void(const std::string& container_id, const ProcessExit& exit)> exited;
  // Each second or MiB while there is output, before `exited`, and when the monitor stops.
  std::function<void(const std::string& container_id, const LogCheckpoint& checkpoint)> checkpoint;
  // So many more bytes of output are in a log.
  std::function<void(std::uint64_t bytes)> logged;
  // Must not block.
  std::function<void(const MemoryNews& news)> memory;
};

// Keeps a long poll at the agent over all watched containers. A poll that fails is repeated until the monitor is
// stopped. Thread safe, but for Stop and the destructor, which belong to the owner.
class PodMonitor {
 public:
  PodMonitor(std::string pod_id, std::shared_ptr<agent::AgentClient> client, MonitorHandlers handlers);
  PodMonitor(const PodMonitor&) = delete;
  PodMonitor& operator=(const PodMonitor&) = delete;
  // Stops.
  ~PodMonitor();

  // A container that was started. `exited` will be called for it, unless the monitor is stopped first.
  void Watch(const std::string& container_id, std::shared_ptr<ContainerOutput> output);
  // A handler that is being called for it goes on; no further one is called.
  void Forget(const std::string& container_id);

  // Makes the thread end soon. Does not wait.
  void RequestStop();
  // Returns when the thread has ended. Not on the monitor's own thread.
  void Stop();

 private:
  struct Watched {
    std::string container_id;
    std::shared_ptr<ContainerOutput> output;
    // The rest belongs to the monitor's thread.
    std::optional<ProcessExit> exit;
    std::optional<Drain> drain;      // with the exit
    std::uint64_t polled_bytes = 0;  // by the last poll
    bool polled_news = false;
    std::uint64_t unsaved_bytes = 0;
    std::optional<Context::Clock::time_point> save_at;  // a checkpoint is due
    bool finished = false;
  };
  using WatchedList = std::vector<std::shared_ptr<Watched>>;

  void Run();
  // Waits until there is something to watch. Empty: stopped.
  WatchedList AwaitWatched(std::stop_token& interrupted);
  // False after a failure.
  bool PollOnce(const Context& context, const WatchedList& list);
  void DigestMemory(const agent::v1::PollResponse& response);
  // True if anything new was told.
  bool Digest(const agent::v1::PollResponse& response, const WatchedList& list);
  void Settle(const WatchedList& list);
  void Save(Watched& watched) const;
  void Interrupt() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string pod_id_;
  const std::shared_ptr<agent::AgentClient> client_;
  const MonitorHandlers handlers_;

  Mutex mutex_;
  ConditionVariable changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, std::shared_ptr<Watched>> watched_ ABSL_GUARDED_BY(mutex_);
  std::stop_source interrupt_ ABSL_GUARDED_BY(mutex_);  // ends the poll in flight

  // The monitor's thread's. Absent: what the first answer says may have been told to an earlier process.
  std::optional<agent::v1::MemoryNews> memory_told_;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_POD_MONITOR_H_
