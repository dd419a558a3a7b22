// How long output is waited for after its process has ended.
#ifndef HUSK_SANDBOX_DRAIN_H_
#define HUSK_SANDBOX_DRAIN_H_

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "agent/common/context.h"

namespace husk::sandbox {

// A process may leave others behind that keep its output open for ever (docs/adr/0043): its streams have kGrace to end,
// and each chunk gives them as long again, up to kLimit in all. Large chunks are what the process itself had written
// and nobody had fetched; they renew the limit, up to kBacklog bytes. Time in which nobody asked does not count. Not
// thread safe.
class Drain {
 public:
  static constexpr auto kGrace = std::chrono::seconds(2);
  static constexpr auto kLimit = std::chrono::seconds(10);
  static constexpr std::size_t kLargeChunk = std::size_t{64} << 10;
  static constexpr std::size_t kBacklog = std::size_t{64} << 20;

  // The exit was told now.
  Drain() : deadline_(Context::Clock::now() + kGrace), limit_(Context::Clock::now() + kLimit) {}

  // A poll brought output.
  void Progress(std::size_t bytes) {
    const auto now = Context::Clock::now();
    asked_ = true;
    idle_ = false;
    backlog_ += bytes;
    if (bytes >= kLargeChunk && backlog_ <= kBacklog) limit_ = now + kLimit;
    deadline_ = std::min(limit_, now + kGrace);
  }
  // A poll brought none, or failed.
  void Idle() { asked_ = idle_ = true; }
  // The process's output could not be taken for so long, because who gets it was slow.
  void Paused(Context::Clock::duration time) {
    deadline_ += time;
    limit_ += time;
  }
  // There is nothing to wait for.
  void Abandon() {
    Idle();
    deadline_ = limit_ = Context::Clock::now();
  }

  // Whether to wait no longer.
  [[nodiscard]] bool over() const {
    const auto now = Context::Clock::now();
    return asked_ && (now >= limit_ || (idle_ && now >= deadline_));
  }
  // When a poll that waits should come back.
  [[nodiscard]] Context::Clock::time_point deadline() const { return deadline_; }

 private:
  Context::Clock::time_point deadline_;
  Context::Clock::time_point limit_;
  std::size_t backlog_ = 0;
  bool asked_ = false;  // at least one poll since the exit
  bool idle_ = false;   // and the last one brought nothing
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_DRAIN_H_
