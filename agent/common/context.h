// What a blocking operation is told by its caller: until when, whether it is still wanted, and on whose behalf.
#ifndef HUSK_AGENT_COMMON_CONTEXT_H_
#define HUSK_AGENT_COMMON_CONTEXT_H_

#include <chrono>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk {

// A value: cheap to copy, safe to use from several threads. A context made from another one ends no later than it.
class Context {
 public:
  using Clock = std::chrono::steady_clock;

  // Never ends.
  static Context Background(std::string_view request_id = "");

  // Also ends after `timeout` from now.
  [[nodiscard]] Context WithTimeout(Clock::duration timeout) const;
  // Also ends at `deadline`.
  [[nodiscard]] Context WithDeadline(Clock::time_point deadline) const;
  // Also ends when `token` is asked to stop, as when the gRPC call is cancelled or its pod is being stopped.
  [[nodiscard]] Context WithStopToken(std::stop_token token) const;
  // For undoing after failure: the same request id, none of the old ends, `timeout` from now.
  [[nodiscard]] Context Detached(Clock::duration timeout) const;

  // Fires when any of the stop tokens does; not at the deadline.
  [[nodiscard]] std::stop_token stop_token() const;
  // time_point::max() if there is none.
  [[nodiscard]] Clock::time_point deadline() const { return deadline_; }
  // At least zero; duration::max() without a deadline.
  [[nodiscard]] Clock::duration remaining() const;
  // For poll(2): milliseconds left, rounded up, at most `limit_ms` (-1: no limit); -1 if there is no end.
  [[nodiscard]] int remaining_ms(int limit_ms = -1) const;
  [[nodiscard]] const std::string& request_id() const;

  // OK while the operation is wanted, else CANCELLED or DEADLINE_EXCEEDED.
  [[nodiscard]] Status Check() const;

 private:
  struct State;
  Context(std::shared_ptr<const State> state, Clock::time_point deadline)
      : state_(std::move(state)), deadline_(deadline) {}

  std::shared_ptr<const State> state_;
  Clock::time_point deadline_;
};

// A descriptor that becomes readable when `context`'s stop token fires, for use in poll(2) beside others. The
// context's deadline is not watched: pass remaining_ms() to poll.
class StopFd {
 public:
  explicit StopFd(const Context& context);
  ~StopFd();
  [[nodiscard]] int get() const { return event_.get(); }

 private:
  struct Signal {
    int fd;
    void operator()() const;
  };
  UniqueFd event_;
  std::unique_ptr<std::stop_callback<Signal>> callback_;
};

// Sleeps until `duration` has passed (OK) or the context ends (its error).
Status SleepFor(const Context& context, Context::Clock::duration duration);

}  // namespace husk

#endif  // HUSK_AGENT_COMMON_CONTEXT_H_
