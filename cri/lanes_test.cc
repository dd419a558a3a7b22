#include "cri/lanes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <thread>
#include <vector>

namespace husk::cri {
namespace {

using std::chrono::minutes;

LaneLimitsByClass SameLimits(std::uint32_t workers, std::uint32_t queue) {
  LaneLimitsByClass limits;
  limits.fill({.workers = workers, .queue = queue});
  return limits;
}

// Occupies workers until it is let go.
class Gate {
 public:
  std::function<void()> Task() {
    return [this] {
      ++entered_;
      entered_.notify_all();
      open_.get_future_shared().wait();
    };
  }
  void AwaitEntered(int count) {
    for (int seen = entered_.load(); seen < count; seen = entered_.load()) entered_.wait(seen);
  }
  void Open() { open_.Set(); }

 private:
  struct Event {
    std::promise<void> promise;
    std::shared_future<void> future = promise.get_future().share();
    std::shared_future<void> get_future_shared() const { return future; }
    void Set() { promise.set_value(); }
  };
  Event open_;
  std::atomic<int> entered_ = 0;
};

TEST(Lanes, AFullLaneRefusesAndTheOthersServe) {
  Gate gate;
  Lanes lanes(SameLimits(2, 3));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(lanes.Submit(LaneClass::kVm, gate.Task()).ok()) << i;
  gate.AwaitEntered(2);

  bool refused_task_ran = false;
  const Status refused = lanes.Submit(LaneClass::kVm, [&] { refused_task_ran = true; });
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("vm"), std::string::npos) << refused;

  for (const LaneClass other : {LaneClass::kReadOnly, LaneClass::kTeardown, LaneClass::kImage, LaneClass::kExec}) {
    std::promise<void> done;
    ASSERT_TRUE(lanes.Submit(other, [&] { done.set_value(); }).ok());
    ASSERT_EQ(done.get_future().wait_for(minutes(2)), std::future_status::ready) << LaneName(other);
  }

  const LaneCounters busy = lanes.counters(LaneClass::kVm);
  EXPECT_EQ(busy.running, 2U);
  EXPECT_EQ(busy.queued, 3U);
  EXPECT_EQ(busy.accepted, 5U);
  EXPECT_EQ(busy.refused, 1U);
  EXPECT_EQ(busy.finished, 0U);

  gate.Open();
  lanes.Drain();
  const LaneCounters after = lanes.counters(LaneClass::kVm);
  EXPECT_EQ(after.finished, 5U);
  EXPECT_EQ(after.running, 0U);
  EXPECT_EQ(after.queued, 0U);
  EXPECT_GT(after.waited.count(), 0);
  EXPECT_GT(after.run.count(), 0);
  EXPECT_FALSE(refused_task_ran);
}

TEST(Lanes, WithoutAQueueExactlyTheWorkersAreBusy) {
  Gate gate;
  Lanes lanes(SameLimits(3, 0));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(lanes.Submit(LaneClass::kExec, gate.Task()).ok());
  EXPECT_EQ(lanes.Submit(LaneClass::kExec, gate.Task()).code(), absl::StatusCode::kResourceExhausted);
  gate.AwaitEntered(3);
  EXPECT_EQ(lanes.Submit(LaneClass::kExec, gate.Task()).code(), absl::StatusCode::kResourceExhausted);
  gate.Open();
}

TEST(Lanes, OneWorkerKeepsTheOrder) {
  std::vector<int> order;
  {
    Lanes lanes(SameLimits(1, 100));
    for (int i = 0; i < 100; ++i)
      ASSERT_TRUE(lanes.Submit(LaneClass::kImage, [&order, i] { order.push_back(i); }).ok());
  }
  ASSERT_EQ(order.size(), 100U);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(Lanes, DrainRunsWhatWasAcceptedAndTakesNothingMore) {
  std::atomic<int> ran = 0;
  Lanes lanes(SameLimits(2, 50));
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(lanes.Submit(LaneClass::kVm, [&ran] { ++ran; }).ok());
  lanes.Drain();
  EXPECT_EQ(ran.load(), 50);
  EXPECT_EQ(lanes.Submit(LaneClass::kVm, [&ran] { ++ran; }).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ran.load(), 50);
}

TEST(Lanes, ManySubmittersLoseNothing) {
  constexpr int kSubmitters = 8;
  constexpr int kEach = 500;
  std::atomic<int> ran = 0;
  std::atomic<int> refused = 0;
  {
    Lanes lanes(SameLimits(4, 64));
    std::vector<std::jthread> submitters;
    submitters.reserve(kSubmitters);
    for (int s = 0; s < kSubmitters; ++s) {
      submitters.emplace_back([&] {
        for (int i = 0; i < kEach; ++i) {
          if (!lanes.Submit(LaneClass::kReadOnly, [&ran] { ++ran; }).ok()) ++refused;
        }
      });
    }
    submitters.clear();
    lanes.Drain();
    EXPECT_EQ(lanes.counters(LaneClass::kReadOnly).refused, static_cast<std::uint64_t>(refused.load()));
  }
  EXPECT_EQ(ran.load() + refused.load(), kSubmitters * kEach);
}

}  // namespace
}  // namespace husk::cri
