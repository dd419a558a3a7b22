#include "sandbox/waiting.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <stop_token>
#include <thread>
#include <vector>

namespace husk::sandbox {
namespace {

// Two minutes from each use: a static one would run out in a slow run of other tests.
Context Patient() {
  return Context::Background("test").WithTimeout(std::chrono::minutes(2));
}

TEST(TurnLockTest, OneAtATime) {
  TurnLock lock;
  int inside = 0;
  int done = 0;
  constexpr int kThreads = 8;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int count = 0; count < kThreads; ++count) {
    threads.emplace_back([&] {
      const auto turn = lock.Take(Patient());
      ASSERT_TRUE(turn.ok()) << turn.status();
      EXPECT_EQ(++inside, 1);
      ++done;
      --inside;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(done, kThreads);
}

TEST(TurnLockTest, AWaiterThatGivesUpIsPassedOver) {
  TurnLock lock;
  auto first = lock.Take(Patient());
  ASSERT_TRUE(first.ok());
  std::stop_source impatient;
  std::thread waiter(
      [&] { EXPECT_TRUE(absl::IsCancelled(lock.Take(Patient().WithStopToken(impatient.get_token())).status())); });
  impatient.request_stop();
  waiter.join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(lock.Take(Patient().WithTimeout(std::chrono::milliseconds(1))).status()));
  {
    const TurnLock::Turn ended = *std::move(first);
  }
  EXPECT_TRUE(lock.Take(Patient()).ok());
}

TEST(WaitForTest, SeesWhatIsTrueAlreadyEvenInAnEndedContext) {
  Mutex mutex;
  ConditionVariable changed;
  EXPECT_TRUE(WaitFor(Patient().WithTimeout(std::chrono::seconds(0)), mutex, changed, [] { return true; }).ok());
  EXPECT_FALSE(WaitFor(Patient().WithTimeout(std::chrono::seconds(0)), mutex, changed, [] { return false; }).ok());
}

TEST(PlacesTest, NoMoreThanThereAre) {
  Places places(2);
  auto first = places.Take(Patient());
  const auto second = places.Take(Patient());
  ASSERT_TRUE(first.ok() && second.ok());
  const auto third = places.Take(Patient().WithTimeout(std::chrono::milliseconds(1)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(third.status())) << third.status();
  first->Release();
  EXPECT_TRUE(places.Take(Patient()).ok());
}

TEST(PlacesTest, AFreedPlaceGoesToAWaiter) {
  Places places(1);
  auto taken = places.Take(Patient());
  ASSERT_TRUE(taken.ok());
  std::thread waiter([&] { EXPECT_TRUE(places.Take(Patient()).ok()); });
  taken->Release();
  waiter.join();
}

TEST(PlacesTest, GoInTheOrderOfTheWaitersAndPastThoseWhoGaveUp) {
  Places places(1);
  auto taken = places.Take(Patient());
  ASSERT_TRUE(taken.ok());
  std::stop_source impatient;
  std::vector<std::size_t> order;  // written by whoever has the place
  std::vector<std::thread> waiters;
  constexpr std::size_t kWaiters = 4;
  for (std::size_t waiter = 0; waiter < kWaiters; ++waiter) {
    waiters.emplace_back([&, waiter] {
      const Context context = waiter == 1 ? Patient().WithStopToken(impatient.get_token()) : Patient();
      const auto place = places.Take(context);
      if (place.ok()) order.push_back(waiter);
    });
    while (places.waiting() <= waiter) std::this_thread::yield();
  }
  impatient.request_stop();
  waiters[1].join();
  taken->Release();
  for (const std::size_t waiter : {0U, 2U, 3U}) waiters[waiter].join();
  EXPECT_EQ(order, (std::vector<std::size_t>{0, 2, 3}));
}

}  // namespace
}  // namespace husk::sandbox
