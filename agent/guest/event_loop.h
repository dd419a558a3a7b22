// The agent's one thread: it sleeps in epoll_wait and runs callbacks for descriptors, timers and ended children.
#ifndef HUSK_AGENT_GUEST_EVENT_LOOP_H_
#define HUSK_AGENT_GUEST_EVENT_LOOP_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::agent {

// Not thread safe but for Stop(). Callbacks may add and remove anything, themselves included.
class EventLoop {
 public:
  using Clock = std::chrono::steady_clock;
  using TimerId = std::pair<Clock::time_point, std::uint64_t>;
  using ChildExit = std::function<void(pid_t pid, int wait_status)>;

  // SIGCHLD must be blocked in every thread of the process before.
  static StatusOr<std::unique_ptr<EventLoop>> Create();

  // `callback` is called with the EPOLL* bits that happened. The caller keeps the descriptor open until Unwatch.
  Status Watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> callback);
  // Changes the events that are waited for.
  void SetEvents(int fd, std::uint32_t events);
  void Unwatch(int fd);

  TimerId After(Clock::duration delay, std::function<void()> callback);
  void Cancel(TimerId timer) { timers_.erase(timer); }

  // Called for every child that ended, adopted orphans included.
  void OnChildExit(ChildExit callback) { child_exit_ = std::move(callback); }
  // Called before each sleep, when all that happened has been dispatched.
  void BeforeSleep(std::function<void()> callback) { before_sleep_ = std::move(callback); }

  // Returns after Stop(), and can be called again.
  void Run();
  // From any thread.
  void Stop();

 private:
  EventLoop() = default;
  void ReapChildren();
  void RunTimers();
  [[nodiscard]] int SleepMilliseconds() const;

  UniqueFd epoll_;
  UniqueFd signals_;
  UniqueFd stop_;
  bool running_ = true;
  // Shared, so that a callback survives its own removal.
  std::unordered_map<int, std::shared_ptr<std::function<void(std::uint32_t)>>> watches_;
  std::map<TimerId, std::function<void()>> timers_;
  std::uint64_t next_timer_ = 0;
  ChildExit child_exit_;
  std::function<void()> before_sleep_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_EVENT_LOOP_H_
