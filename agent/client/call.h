// One request on its way: the meeting point of the thread that waits and the I/O thread that answers.
#ifndef HUSK_AGENT_CLIENT_CALL_H_
#define HUSK_AGENT_CLIENT_CALL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"

namespace husk::agent {

// Shared by both threads; immutable but for the outcome.
class Call {
 public:
  Call(std::string method, std::string payload, Context::Clock::time_point deadline)
      : method_(std::move(method)), payload_(std::move(payload)), deadline_(deadline) {}

  [[nodiscard]] const std::string& method() const { return method_; }
  [[nodiscard]] const std::string& payload() const { return payload_; }
  [[nodiscard]] Context::Clock::time_point deadline() const { return deadline_; }

  // Wakes the waiter. The first outcome counts.
  void Finish(StatusOr<std::string> outcome);
  // The outcome, or nothing if the context ends first.
  std::optional<StatusOr<std::string>> Wait(const Context& context);

 private:
  const std::string method_;
  const std::string payload_;
  const Context::Clock::time_point deadline_;

  Mutex mutex_;
  ConditionVariable changed_;
  std::optional<StatusOr<std::string>> outcome_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_CALL_H_
