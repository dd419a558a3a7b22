#include "sandbox/owed_teardowns.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using std::chrono::milliseconds;

bool Becomes(const std::atomic<int>& number, int wanted) {
  const auto until = Context::Clock::now() + std::chrono::seconds(30);
  while (number < wanted && Context::Clock::now() < until) {
    SleepFor(Context::Background(), milliseconds(1)).IgnoreError();
  }
  return number >= wanted;
}

TEST(OwedTeardownsTest, AreTriedUntilTheySucceed) {
  std::atomic<int> first = 0;
  std::atomic<int> second = 0;
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> watched = held;
  OwedTeardowns owed(milliseconds(1));
  owed.Owe("first", [&first, held = std::move(held)](const Context& context) -> Status {
    HUSK_RETURN_IF_ERROR(context.Check());
    return ++first < 3 ? absl::InternalError("not yet") : absl::OkStatus();
  });
  owed.Owe("first", [&second](const Context&) -> Status { return ++second, absl::OkStatus(); });
  owed.Owe("other", [&second](const Context&) -> Status { return ++second, absl::OkStatus(); });
  EXPECT_TRUE(Becomes(first, 3));
  EXPECT_TRUE(Becomes(second, 1));
  owed.Stop();
  EXPECT_EQ(first, 3) << "once done it is not done again";
  EXPECT_EQ(second, 1) << "one name is one teardown";
  EXPECT_TRUE(watched.expired());
}

TEST(OwedTeardownsTest, OneThatIsOwedAnewWhileItSucceedsIsDoneAgain) {
  std::atomic<int> calls = 0;
  std::atomic<bool> go_on = false;
  OwedTeardowns owed(milliseconds(1));
  const OwedTeardowns::Teardown waits = [&](const Context& context) -> Status {
    ++calls;
    while (!go_on) HUSK_RETURN_IF_ERROR(SleepFor(context, milliseconds(1)));
    return absl::OkStatus();
  };
  owed.Owe("resize", waits);
  ASSERT_TRUE(Becomes(calls, 1));
  // What it looked at may have changed meanwhile.
  owed.Owe("resize", waits);
  go_on = true;
  EXPECT_TRUE(Becomes(calls, 2));
  owed.Stop();
  EXPECT_EQ(calls, 2);
}

TEST(OwedTeardownsTest, AnEndCancelsWhatIsUnderWay) {
  std::atomic<int> calls = 0;
  OwedTeardowns owed(milliseconds(1));
  owed.Owe("waits", [&calls](const Context& context) {
    ++calls;
    return SleepFor(context, std::chrono::hours(1));
  });
  EXPECT_TRUE(Becomes(calls, 1));
  owed.Stop();
  owed.Owe("late", [&calls](const Context&) -> Status { return ++calls, absl::OkStatus(); });
  owed.Stop();
  EXPECT_EQ(calls, 1);
}

TEST(OwedTeardownsTest, WhoDoesItHimselfInterrupts) {
  std::atomic<int> calls = 0;
  OwedTeardowns owed(milliseconds(1));
  owed.Owe("waits", [&calls](const Context& context) -> Status {
    if (++calls > 1) return absl::OkStatus();
    return SleepFor(context, std::chrono::hours(1));
  });
  ASSERT_TRUE(Becomes(calls, 1));
  owed.Interrupt("another");
  EXPECT_EQ(calls, 1);
  owed.Interrupt("waits");
  EXPECT_TRUE(Becomes(calls, 2));
}

TEST(OwedTeardownsTest, OneThatHangsHoldsUpNoOther) {
  std::atomic<int> hanging = 0;
  std::atomic<int> done = 0;
  OwedTeardowns owed(milliseconds(1), 3);
  for (const char* name : {"hangs", "hangs too"}) {
    owed.Owe(name, [&hanging](const Context& context) {
      ++hanging;
      return SleepFor(context, std::chrono::hours(1));
    });
  }
  ASSERT_TRUE(Becomes(hanging, 2));
  for (const char* name : {"one", "another"}) {
    owed.Owe(name, [&done](const Context&) -> Status { return ++done, absl::OkStatus(); });
  }
  EXPECT_TRUE(Becomes(done, 2));
  EXPECT_EQ(hanging, 2) << "none is tried twice at a time";
  owed.Interrupt("hangs too");
  owed.Stop();
}

class OwedPodsTest : public RuntimeFixture {
 protected:
  bool AwaitNothingAttached() {
    return Eventually([&] { return network_.attachments() == 0; });
  }
};

TEST_F(OwedPodsTest, NET02_AStopWhoseDelFailedIsDoneLater) {
  const std::string pod = RunPod();
  network_.FailNext("Detach", absl::UnavailableError("the plugin's daemon is away"));
  EXPECT_TRUE(absl::IsUnavailable(runtime_->StopPod(context_, pod)));
  EXPECT_EQ(network_.attachments(), 1U);
  EXPECT_TRUE(AwaitNothingAttached()) << "though nobody has asked again";
  EXPECT_EQ(StateOf(pod), PodState::kNotReady);
  EXPECT_TRUE(runtime_->StopPod(context_, pod).ok());
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(OwedPodsTest, NET02_ARemovalThatFailedIsDoneLater) {
  const std::string removed = RunPod();
  network_.FailNext("Detach", absl::UnavailableError("away"));
  EXPECT_TRUE(absl::IsUnavailable(runtime_->RemovePod(context_, removed)));
  EXPECT_TRUE(Eventually([&] { return runtime_->ListPods({}).empty(); }));
  ExpectNothingLeft();
}

TEST_F(OwedPodsTest, NET02_AStartThatCouldNotBeUndoneIsUndoneLater) {
  network_.FailNext("CreateTap", absl::InternalError("no tap"));
  network_.FailNext("Detach", absl::UnavailableError("away"));
  EXPECT_FALSE(runtime_->RunPod(context_, Pod("half")).ok());
  EXPECT_EQ(network_.attachments(), 1U);
  EXPECT_TRUE(Eventually([&] { return runtime_->ListPods({}).empty(); }));
  ExpectNothingLeft();
}

TEST_F(OwedPodsTest, NET02_WhatIsInNoRecordIsRemovedLater) {
  runtime_.reset();
  network_.AddStrayNamespace("stray");
  network_.FailNext("Detach", absl::UnavailableError("away"));
  Start();
  EXPECT_TRUE(AwaitNothingAttached());
  EXPECT_TRUE(Eventually([&] { return network_.namespaces() == 0; }));
}

}  // namespace
}  // namespace husk::sandbox
