// Bounded pools of threads, one for each class of request, so that no class can delay another.
#ifndef HUSK_CRI_LANES_H_
#define HUSK_CRI_LANES_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "agent/common/status.h"
#include "cri/call_observer.h"

namespace husk::cri {

// What a request waits for. Stops and removals have a lane of their own: a stop must get through to the boot that it
// interrupts although boots fill the VM lane. So have statistics, which wait for guests.
enum class LaneClass : std::size_t { kReadOnly, kVm, kTeardown, kImage, kExec, kStats };
inline constexpr std::size_t kLaneClassCount = 6;
inline constexpr std::array<LaneClass, kLaneClassCount> kLaneClasses = {
    LaneClass::kReadOnly, LaneClass::kVm, LaneClass::kTeardown, LaneClass::kImage, LaneClass::kExec, LaneClass::kStats};

// "read_only", "vm", "teardown", "image", "exec", "stats": as in the configuration.
std::string_view LaneName(LaneClass lane_class);

struct LaneLimits {
  std::uint32_t workers = 1;  // threads, started as they are needed
  std::uint32_t queue = 0;    // requests that wait while every worker is busy
};

// Since the start, but for the first two.
struct LaneCounters {
  std::uint64_t queued = 0;   // waiting now
  std::uint64_t running = 0;  // in a worker now
  std::uint64_t accepted = 0;
  std::uint64_t refused = 0;
  std::uint64_t finished = 0;
  std::chrono::nanoseconds waited{0};  // sums over the requests that were taken from the queue or have finished
  std::chrono::nanoseconds run{0};
};

using LaneLimitsByClass = std::array<LaneLimits, kLaneClassCount>;

// Thread safe.
class Lanes {
 public:
  // `observer` is told of every call that goes through a lane, and must outlive the lanes.
  explicit Lanes(const LaneLimitsByClass& limits, CallObserver* observer = &CallObserver::Nobody());
  Lanes(const Lanes&) = delete;
  Lanes& operator=(const Lanes&) = delete;
  ~Lanes();  // drains

  // Runs `task` on a thread of its class, in the order of submission. RESOURCE_EXHAUSTED, and the task is dropped
  // without having run, if all workers are busy and the queue is full; UNAVAILABLE after Drain. Never blocks.
  Status Submit(LaneClass lane_class, std::function<void()> task);

  [[nodiscard]] LaneCounters counters(LaneClass lane_class) const;
  [[nodiscard]] CallObserver& observer() const { return *observer_; }

  // Takes nothing new, runs what was accepted, and returns when the last task has ended.
  void Drain();

 private:
  class Lane;
  CallObserver* const observer_;
  std::array<std::unique_ptr<Lane>, kLaneClassCount> lanes_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_LANES_H_
