#include "cri/lanes.h"

#include <deque>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/common/mutex.h"

namespace husk::cri {

namespace {
using Clock = std::chrono::steady_clock;

constexpr std::size_t Index(LaneClass lane_class) {
  return static_cast<std::size_t>(lane_class);
}
}  // namespace

std::string_view LaneName(LaneClass lane_class) {
  switch (lane_class) {
    case LaneClass::kReadOnly:
      return "read_only";
    case LaneClass::kVm:
      return "vm";
    case LaneClass::kTeardown:
      return "teardown";
    case LaneClass::kImage:
      return "image";
    case LaneClass::kExec:
      return "exec";
    case LaneClass::kStats:
      return "stats";
  }
  return "";
}

class Lanes::Lane {
 public:
  Lane(std::string_view name, LaneLimits limits) : name_(name), limits_(limits) {}
  ~Lane() { Drain(); }

  Status Submit(std::function<void()> task) {
    const MutexLock lock(mutex_);
    if (draining_) return absl::UnavailableError("huskd is shutting down");
    const std::size_t idle = workers_.size() - counters_.running;
    if (waiting_.size() >= idle + (limits_.workers - workers_.size()) + limits_.queue) {
      ++counters_.refused;
      return absl::ResourceExhaustedError(absl::StrCat("too many ", name_, " requests: ", limits_.workers, " run and ",
                                                       limits_.queue, " wait (lanes.", name_,
                                                       " of the configuration); try again later"));
    }
    waiting_.push_back({std::move(task), Clock::now()});
    ++counters_.accepted;
    if (waiting_.size() > idle && workers_.size() < limits_.workers) workers_.emplace_back([this] { Work(); });
    wake_.NotifyOne();
    return absl::OkStatus();
  }

  LaneCounters counters() const {
    const MutexLock lock(mutex_);
    LaneCounters result = counters_;
    result.queued = waiting_.size();
    return result;
  }

  void Drain() {
    std::vector<std::thread> workers;
    {
      const MutexLock lock(mutex_);
      draining_ = true;
      workers.swap(workers_);
    }
    wake_.NotifyAll();
    for (std::thread& worker : workers) worker.join();
  }

 private:
  struct Waiting {
    std::function<void()> task;
    Clock::time_point since;
  };

  void Work() {
    mutex_.Lock();
    for (;;) {
      while (waiting_.empty() && !draining_) wake_.Wait(mutex_);
      if (waiting_.empty()) break;
      Waiting next = std::move(waiting_.front());
      waiting_.pop_front();
      ++counters_.running;
      const auto started = Clock::now();
      counters_.waited += started - next.since;
      mutex_.Unlock();
      next.task();
      next.task = nullptr;  // what the task holds is released before it counts as finished
      mutex_.Lock();
      --counters_.running;
      ++counters_.finished;
      counters_.run += Clock::now() - started;
    }
    mutex_.Unlock();
  }

  const std::string name_;
  const LaneLimits limits_;
  mutable Mutex mutex_;
  ConditionVariable wake_;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> workers_ ABSL_GUARDED_BY(mutex_);
  LaneCounters counters_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

Lanes::Lanes(const LaneLimitsByClass& limits, CallObserver* observer) : observer_(observer) {
  for (const LaneClass lane_class : kLaneClasses) {
    lanes_.at(Index(lane_class)) = std::make_unique<Lane>(LaneName(lane_class), limits.at(Index(lane_class)));
  }
}

Lanes::~Lanes() = default;

Status Lanes::Submit(LaneClass lane_class, std::function<void()> task) {
  return lanes_.at(Index(lane_class))->Submit(std::move(task));
}

LaneCounters Lanes::counters(LaneClass lane_class) const {
  return lanes_.at(Index(lane_class))->counters();
}

void Lanes::Drain() {
  for (const auto& lane : lanes_) lane->Drain();
}

}  // namespace husk::cri
