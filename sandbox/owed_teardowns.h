// Teardowns that failed, and resizes. See docs/adr/0123-owed-teardowns-are-tried-again.md.
#ifndef HUSK_SANDBOX_OWED_TEARDOWNS_H_
#define HUSK_SANDBOX_OWED_TEARDOWNS_H_

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"

namespace husk::sandbox {

// Tries each again until it succeeds, after `first_retry`, and then after twice as long each time, up to five minutes.
// As many as there are `threads` are tried at a time, each for at most a minute; a thread starts when it is first
// needed. Thread safe.
class OwedTeardowns {
 public:
  using Teardown = std::function<Status(const Context& context)>;
  // Whether its success is news for the log. Failures always are.
  enum class Telling { kEnd, kFailures };

  explicit OwedTeardowns(std::chrono::milliseconds first_retry = std::chrono::seconds(5), std::size_t threads = 1)
      : first_retry_(first_retry), most_threads_(threads) {}
  OwedTeardowns(const OwedTeardowns&) = delete;
  OwedTeardowns& operator=(const OwedTeardowns&) = delete;
  ~OwedTeardowns() { Stop(); }

  // `name`: for messages too. One that is owed already stays as it is; if it is being tried, and succeeds, it is tried
  // once more. `teardown` must be repeatable, and OK when there is nothing left to do; it is called without any lock.
  void Owe(const std::string& name, Teardown teardown, Telling telling = Telling::kEnd);
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
    Telling telling = Telling::kEnd;
    bool running = false;
    bool again = false;                            // owed anew while it is being tried
    std::stop_source interrupt{std::nostopstate};  // ends what is running
  };
  struct Attempt {
    std::string name;
    Teardown teardown;
    std::stop_token interrupted;
  };

  void Run();
  // Waits until one is due; none when it is time to stop.
  std::optional<Attempt> AwaitDue();
  void Note(const std::string& name, const Status& status);

  const std::chrono::milliseconds first_retry_;
  const std::size_t most_threads_;
  std::stop_source stop_;  // thread safe by itself
  Mutex mutex_;
  ConditionVariable changed_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_OWED_TEARDOWNS_H_
