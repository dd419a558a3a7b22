#include "sandbox/event_hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Event Named(const std::string& id) {
  return {.id = id, .pod = {}, .containers = {}};
}

std::vector<std::string> TakeAll(EventSubscription& subscription) {
  std::vector<std::string> ids;
  while (const auto event = subscription.Next()) ids.push_back(event->id);
  return ids;
}

TEST(EventHubTest, EverySubscriberGetsTheSameInTheSameOrder) {
  EventHub hub;
  EXPECT_FALSE(hub.Wanted());
  hub.Publish(Named("before"));
  std::atomic<int> woken = 0;
  const auto one = *hub.Subscribe([&] { ++woken; });
  const auto two = *hub.Subscribe([] {});
  EXPECT_TRUE(hub.Wanted());
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&hub, thread] {
      for (int i = 0; i < 50; ++i) hub.Publish(Named(absl::StrCat(thread, "/", i)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(woken, 200);
  std::int64_t last = 0;
  std::vector<std::string> ids;
  while (const auto event = one->Next()) {
    EXPECT_GT(event->created_at, last);
    last = event->created_at;
    ids.push_back(event->id);
  }
  EXPECT_EQ(ids.size(), 200U);
  EXPECT_EQ(TakeAll(*two), ids);
}

TEST(EventHubTest, ASlowSubscriberIsCutOffAlone) {
  EventHub hub({.queue_limit = 3});
  const auto slow = *hub.Subscribe([] {});
  const auto quick = *hub.Subscribe([] {});
  for (int i = 0; i < 3; ++i) hub.Publish(Named(absl::StrCat(i)));
  EXPECT_THAT(TakeAll(*quick), ElementsAre("0", "1", "2"));
  EXPECT_TRUE(slow->status().ok());
  hub.Publish(Named("3"));
  hub.Publish(Named("4"));
  EXPECT_EQ(hub.counters().cut_off, 1U);
  EXPECT_EQ(hub.counters().published, 5U);
  EXPECT_EQ(slow->status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(slow->status().message()), HasSubstr("too slow"));
  EXPECT_THAT(TakeAll(*slow), ElementsAre());
  EXPECT_THAT(TakeAll(*quick), ElementsAre("3", "4"));
  EXPECT_TRUE(quick->status().ok());
}

TEST(EventHubTest, WhoLetsGoIsForgotten) {
  EventHub hub;
  std::atomic<int> woken = 0;
  auto subscription = *hub.Subscribe([&] { ++woken; });
  EXPECT_EQ(hub.counters().subscribers, 1U);
  subscription.reset();
  EXPECT_EQ(hub.counters().subscribers, 0U);
  hub.Publish(Named("unheard"));
  EXPECT_EQ(woken, 0);
  EXPECT_FALSE(hub.Wanted());
}

TEST(EventHubTest, CloseEndsAfterWhatWaits) {
  EventHub hub;
  const auto subscription = *hub.Subscribe([] {});
  hub.Publish(Named("last"));
  hub.Close();
  hub.Publish(Named("too late"));
  EXPECT_TRUE(subscription->status().ok());
  EXPECT_THAT(TakeAll(*subscription), ElementsAre("last"));
  EXPECT_EQ(subscription->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(hub.Subscribe([] {}).status().code(), absl::StatusCode::kUnavailable);
}

TEST(EventHubTest, TheEventsOfARecoveryAreKeptForAWhile) {
  EventHub hub({.queue_limit = 1, .keep_for = std::chrono::hours(1)});
  hub.BeginRecovery();
  EXPECT_TRUE(hub.Wanted());
  hub.Publish(Named("recovered"));
  hub.Publish(Named("recovered too"));
  hub.EndRecovery();
  const auto one = *hub.Subscribe([] {});
  const auto two = *hub.Subscribe([] {});
  hub.Publish(Named("new"));
  EXPECT_THAT(TakeAll(*one), ElementsAre("recovered", "recovered too", "new"));
  EXPECT_THAT(TakeAll(*two), ElementsAre("recovered", "recovered too", "new"));
}

TEST(EventHubTest, AndNotForLonger) {
  EventHub hub({.keep_for = std::chrono::nanoseconds(0)});
  hub.BeginRecovery();
  hub.Publish(Named("recovered"));
  hub.EndRecovery();
  EXPECT_FALSE(hub.Wanted());
  const auto late = *hub.Subscribe([] {});
  EXPECT_THAT(TakeAll(*late), ElementsAre());
}

}  // namespace
}  // namespace husk::sandbox
