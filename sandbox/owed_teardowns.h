// Teardowns that failed, and resizes. See docs/adr/0123-owed-teardowns-are-tried-again.md.
#ifndef HUSK_SANDBOX_OWED_TEARDOWNS_H_
#define HUSK_SANDBOX_OWED_TEARDOWNS_H_

#include <chrono>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <thread>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"

namespace husk::sandbox {

// Tries each again until it succeeds, after `first_retry`, and then after twice as long each time, up to five minutes.
// One thread, started with the first; one teardown at a time, each of at most a minute. Thread safe.
class OwedTeardowns {
 public:
  using Teardown = std::function<Status(const Context& context)>;

  explicit OwedTeardowns(std::chrono::milliseconds first_retry = std::chrono::seconds(5)) : first_retry_(first_retry) {}
  OwedTeardowns(const OwedTeardowns&) = delete;
  OwedTeardowns& operator=(const OwedTeardowns&) = delete;
  ~OwedTeardowns() { Stop(); }

  // `name`: for messages too. One that is owed already stays as it is; if it is being tried, and succeeds, it is tried
  // once more. `teardown` must be repeatable, and OK when there is nothing left to do; it is called without any lock.
  void Owe(const std::string& name, Teardown teardown);
  // Somebody does it now: an attempt at it that is under way is cancelled. Returns at once.
  void Interrupt(const std::string& name);
  // What is under way is cancelled; the rest is left. Returns when none is called any more; then Owe does nothing.
  void Stop();

 private:
  using Clock = Context::Clock;
  struct Entry {
    Teardown teardown;
    std::chrono::milliseconds retry;
    Clock::time_point due;
    bool again = false;  // owed anew while it is being tried
  };

  void Run();
  // Waits until one is due; its name, empty when it is time to stop.
  std::string AwaitDue(Teardown& teardown, std::stop_token& interrupted);
  void Note(const std::string& name, const Status& status);

  const std::chrono::milliseconds first_retry_;
  std::stop_source stop_;  // thread safe by itself
  Mutex mutex_;
  ConditionVariable changed_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::string running_ ABSL_GUARDED_BY(mutex_);         // the name of what is under way
  std::stop_source interrupt_ ABSL_GUARDED_BY(mutex_);  // ends it
  std::thread thread_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_OWED_TEARDOWNS_H_
