// Asks one pod's guest for its figures, in the background, and keeps the last good answer.
#ifndef HUSK_SANDBOX_POD_METER_H_
#define HUSK_SANDBOX_POD_METER_H_

#include <functional>
#include <string>
#include <thread>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "sandbox/stats.h"
#include "sandbox/stats_history.h"

namespace husk::sandbox {

// Thread safe. At most one question at a time, on a thread of its own that ends with the answer: a guest that is silent
// holds up nobody but, for its first question, those that Await it.
class PodMeter {
 public:
  // Blocks; called on the meter's thread.
  using Measure = std::function<StatusOr<StatsSample>(const Context&)>;

  PodMeter() = default;
  PodMeter(const PodMeter&) = delete;
  PodMeter& operator=(const PodMeter&) = delete;
  ~PodMeter() { Stop(); }

  // Returns at once. Does nothing while a question is under way, after Stop, or if the last answer is younger than
  // half a second.
  void Ask(const std::string& name, Measure measure, StatsBounds bounds);
  // Until the question under way is answered, but not after `deadline`; not at all if the guest owes an answer for
  // longer than an earlier call has waited.
  void Await(Context::Clock::time_point deadline);
  // Nothing before the first answer; the last one stays, whatever becomes of the guest.
  [[nodiscard]] PodFigures figures() const;
  // The question under way fails soon; nothing new can be asked. Returns when the thread has ended.
  void Stop();

 private:
  void Run(const Context& context, const Measure& measure, const StatsBounds& bounds);

  std::stop_source stop_;  // thread safe by itself

  mutable Mutex mutex_;
  ConditionVariable changed_;
  StatsHistory history_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool asking_ ABSL_GUARDED_BY(mutex_) = false;
  bool late_ ABSL_GUARDED_BY(mutex_) = false;  // somebody has waited in vain since its last answer
  Context::Clock::time_point answered_at_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_POD_METER_H_
