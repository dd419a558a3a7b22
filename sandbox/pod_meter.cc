#include "sandbox/pod_meter.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

using Clock = Context::Clock;

constexpr auto kFresh = std::chrono::milliseconds(500);
// Nobody waits so long; but an answer that comes late is news all the same.
constexpr auto kAnswerLimit = std::chrono::seconds(20);

}  // namespace

void PodMeter::Ask(const std::string& name, Measure measure, StatsBounds bounds) {
  const MutexLock lock(mutex_);
  if (stopped_ || asking_) return;
  if (answered_at_ != Clock::time_point() && Clock::now() - answered_at_ < kFresh) return;
  // It has ended but for its last instructions, which need no lock.
  if (thread_.joinable()) thread_.join();
  asking_ = true;
  const Context context =
      Context::Background(absl::StrCat("stats-", name)).WithTimeout(kAnswerLimit).WithStopToken(stop_.get_token());
  thread_ = std::thread(
      [this, context, measure = std::move(measure), bounds = std::move(bounds)] { Run(context, measure, bounds); });
}

void PodMeter::Run(const Context& context, const Measure& measure, const StatsBounds& bounds) {
  const auto sample = measure(context);
  const MutexLock lock(mutex_);
  if (sample.ok()) {
    history_.Add(*sample, bounds);
    answered_at_ = Clock::now();
    late_ = false;
  }
  asking_ = false;
  changed_.NotifyAll();
}

void PodMeter::Await(Clock::time_point deadline) {
  const MutexLock lock(mutex_);
  if (late_) return;
  while (asking_) {
    if (changed_.WaitUntil(mutex_, deadline) || !asking_) continue;
    late_ = true;
    return;
  }
}

PodFigures PodMeter::figures() const {
  const MutexLock lock(mutex_);
  return history_.figures();
}

void PodMeter::Stop() {
  stop_.request_stop();
  std::thread thread;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
}

}  // namespace husk::sandbox
