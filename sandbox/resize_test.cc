// VMs that grow and shrink with their containers' limits, and guests that do not go along.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "agent/common/mutex.h"
#include "sandbox/observer.h"
#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr std::int64_t kMebibyte = std::int64_t{1} << 20;

class ResizeTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
  }
  static LinuxResources Limits(std::int64_t mebibytes, std::int64_t milli_cpus) {
    LinuxResources resources;
    resources.memory_limit_bytes = mebibytes * kMebibyte;
    resources.cpu_quota = milli_cpus * 100;
    resources.cpu_period = 100'000;
    return resources;
  }
  std::string Run(const std::string& name, const LinuxResources& resources) {
    ContainerConfig config = Config(name);
    config.resources = resources;
    const auto id = runtime_->CreateContainer(context_, pod_, config);
    EXPECT_TRUE(id.ok()) << id.status();
    if (!id.ok()) return "";
    EXPECT_TRUE(runtime_->StartContainer(context_, *id).ok());
    return *id;
  }
  Status Update(const std::string& id, const LinuxResources& change) {
    return runtime_->UpdateContainerResources(context_, id, change);
  }
  std::int64_t Plugged() { return static_cast<std::int64_t>(machine_.vm(pod_)->plugged_bytes) / kMebibyte; }
  std::uint32_t Vcpus() { return machine_.vm(pod_)->vcpus; }
  std::uint32_t GuestVcpus() {
    const auto resized = Guest(pod_).resized();
    return resized ? resized->cpus() : 0;
  }
  std::int64_t HostLimit() { return static_cast<std::int64_t>(cgroups_.limits(pod_).memory_bytes) / kMebibyte; }
  std::int64_t InForce(const std::string& id) {
    const std::string sent = Guest(pod_).updated_resources(id);
    return sent.empty() ? 0 : Json::parse(sent).at("memory").at("limit").get<std::int64_t>() / kMebibyte;
  }

  std::string pod_;
};

TEST_F(ResizeTest, TheVmFollowsItsContainersUpAndDown) {
  const std::int64_t before = HostLimit();
  const std::string first = Run("first", Limits(64, 500));
  EXPECT_EQ(Plugged(), 0) << "it fits into what there is";
  EXPECT_FALSE(Guest(pod_).resized());
  const std::string second = Run("second", Limits(320, 1000));
  // 384 and 118 for the guest, less the 256 that there are.
  EXPECT_EQ(Plugged(), 248);
  EXPECT_EQ(Vcpus(), 2U);
  EXPECT_EQ(GuestVcpus(), 2U);
  EXPECT_GE(HostLimit(), before + 248);

  ASSERT_TRUE(Update(second, Limits(448, 2000)).ok());
  EXPECT_EQ(Plugged(), 376);
  EXPECT_EQ(GuestVcpus(), 3U);
  EXPECT_EQ(InForce(second), 448);
  ASSERT_TRUE(Update(second, Limits(448, 2000)).ok()) << "a repetition";
  EXPECT_EQ(Plugged(), 376);

  ASSERT_TRUE(Update(second, Limits(64, 500)).ok());
  EXPECT_EQ(Plugged(), 0);
  EXPECT_EQ(GuestVcpus(), 1U);
  EXPECT_EQ(Vcpus(), 1U);
  EXPECT_EQ(HostLimit(), before);
  EXPECT_EQ(StatusOf(first).state, ContainerState::kRunning);

  ASSERT_TRUE(Update(second, Limits(512, 500)).ok());
  EXPECT_GT(Plugged(), 0);
  ASSERT_TRUE(runtime_->RemoveContainer(context_, second).ok());
  EXPECT_EQ(Plugged(), 0);
}

TEST_F(ResizeTest, ThePodsOwnLimitsMoveItToo) {
  Run("main", Limits(64, 500));
  LinuxResources pod = Limits(512, 2000);
  ASSERT_TRUE(runtime_->UpdatePodResources(context_, pod_, pod, {}).ok());
  EXPECT_EQ(Plugged(), 376);
  EXPECT_EQ(GuestVcpus(), 2U);
  const auto told = runtime_->GetPod(pod_, true);
  ASSERT_TRUE(told.ok());
  const Json vm = Json::parse(told->information.at("vm"));
  EXPECT_EQ(vm.at("memoryBytes"), (256 + 376) * kMebibyte);
  EXPECT_EQ(vm.at("requestedMemoryBytes"), (256 + 376) * kMebibyte);
  EXPECT_EQ(vm.at("onlineVcpus"), 2);
  ASSERT_TRUE(runtime_->UpdatePodResources(context_, pod_, Limits(64, 500), {}).ok());
  EXPECT_EQ(Plugged(), 0);
  EXPECT_EQ(GuestVcpus(), 1U);
  EXPECT_EQ(cgroups_.limits(pod_).cpu_quota, 50'000);
}

TEST_F(ResizeTest, AVmThatCannotGrowLeavesAllAsItWas) {
  const std::string id = Run("main", Limits(64, 500));
  const std::int64_t before = HostLimit();
  machine_.FailNext(hypervisor::FakeOperation::kPlugMemory, absl::ResourceExhaustedError("the guest takes none"));
  const Status refused = Update(id, Limits(512, 2000));
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("memory_limit_in_bytes"));
  EXPECT_EQ(HostLimit(), before);
  EXPECT_EQ(InForce(id), 0) << "the guest was not asked";
  EXPECT_EQ(StatusOf(id).config.resources.memory_limit_bytes, 64 * kMebibyte);

  machine_.FailNext(hypervisor::FakeOperation::kSetVcpus, absl::InternalError("no"));
  EXPECT_FALSE(Update(id, Limits(512, 2000)).ok());
  EXPECT_EQ(Plugged(), 0) << "what had grown is taken back";
  Guest(pod_).FailNext("ResizeGuest", absl::FailedPreconditionError("the guest refuses"));
  EXPECT_TRUE(absl::IsFailedPrecondition(Update(id, Limits(512, 2000))));
  EXPECT_EQ(Plugged(), 0);
  EXPECT_EQ(GuestVcpus(), 1U);
  EXPECT_EQ(Vcpus(), 1U);
  Restart();
  EXPECT_EQ(StatusOf(id).config.resources.memory_limit_bytes, 64 * kMebibyte);
  EXPECT_TRUE(Update(id, Limits(512, 2000)).ok());
}

TEST_F(ResizeTest, ALimitBelowUseIsRefusedBeforeAnythingChanges) {
  const std::string id = Run("main", Limits(512, 2000));
  Guest(pod_).FailNext("UpdateResources", absl::FailedPreconditionError("it uses more"));
  const Status refused = Update(id, Limits(64, 3000));
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_EQ(Plugged(), 376);
  EXPECT_EQ(Vcpus(), 2U);
  EXPECT_EQ(InForce(id), 0);
  EXPECT_EQ(StatusOf(id).config.resources.memory_limit_bytes, 512 * kMebibyte);
}

TEST_F(ResizeTest, MemoryThatAGuestKeepsIsTheHostsLimitUntilItIsBack) {
  const std::string id = Run("main", Limits(512, 500));
  const std::int64_t large = HostLimit();
  machine_.KeepMemory(true);
  ASSERT_TRUE(Update(id, Limits(64, 500)).ok()) << "the container's limit is in force";
  EXPECT_EQ(InForce(id), 64);
  EXPECT_EQ(Plugged(), 376);
  EXPECT_EQ(HostLimit(), large);
  const auto told = runtime_->GetPod(pod_, true);
  ASSERT_TRUE(told.ok());
  const Json vm = Json::parse(told->information.at("vm"));
  EXPECT_EQ(vm.at("memoryBytes"), (256 + 376) * kMebibyte) << "what it has";
  EXPECT_EQ(vm.at("requestedMemoryBytes"), 256 * kMebibyte) << "what it was told to have";
  EXPECT_EQ(vm.at("wantedMemoryBytes"), 256 * kMebibyte);
  EXPECT_EQ(vm.at("resizing"), true);
  // The next huskd knows that it waits.
  Restart();
  machine_.KeepMemory(false);
  EXPECT_TRUE(Eventually([&] { return HostLimit() < large; }));
  EXPECT_EQ(Plugged(), 0);
  EXPECT_TRUE(Eventually([&] { return !runtime_->ListVms().at(0).resizing; }));
}

TEST_F(ResizeTest, FiguresOfAVmAreThoseOfVerboseStatus) {
  agent::v1::StatsResponse stats;
  stats.mutable_guest()->set_memory_total_bytes(static_cast<std::uint64_t>(240 * kMebibyte));
  stats.mutable_guest()->set_memory_available_bytes(static_cast<std::uint64_t>(200 * kMebibyte));
  Guest(pod_).SetStats(stats);
  EXPECT_FALSE(runtime_->ListVms().at(0).used_memory_bytes) << "nobody has asked the guest";
  Run("main", Limits(512, 2000));
  const auto told = runtime_->GetPodStats(context_, pod_);
  ASSERT_TRUE(told.ok() && told->vm);
  const auto listed = runtime_->ListVms();
  ASSERT_EQ(listed.size(), 1U);
  const Json vm = Json::parse(runtime_->GetPod(pod_, true)->information.at("vm"));
  for (const VmFigures& figures : {*told->vm, listed.front()}) {
    EXPECT_EQ(figures.memory_bytes, static_cast<std::uint64_t>((256 + 376) * kMebibyte));
    EXPECT_EQ(figures.memory_bytes, vm.at("memoryBytes"));
    EXPECT_EQ(figures.requested_memory_bytes, vm.at("requestedMemoryBytes"));
    EXPECT_EQ(figures.wanted_memory_bytes, vm.at("wantedMemoryBytes"));
    EXPECT_EQ(figures.wanted_memory_bytes, figures.memory_bytes);
    EXPECT_EQ(figures.used_memory_bytes, static_cast<std::uint64_t>(40 * kMebibyte));
    EXPECT_EQ(vm.at("usedMemoryBytes"), 40 * kMebibyte);
    EXPECT_EQ(figures.online_vcpus, 2U);
    EXPECT_EQ(figures.wanted_vcpus, vm.at("wantedVcpus"));
    EXPECT_EQ(figures.vcpus, vm.at("vcpus"));
    EXPECT_FALSE(figures.resizing);
    EXPECT_EQ(vm.at("resizing"), false);
  }
  ASSERT_TRUE(runtime_->StopPod(context_, pod_).ok());
  EXPECT_TRUE(runtime_->ListVms().empty());
}

// Counts what is told of resizes.
class ResizeCounter : public Observer {
 public:
  void OnResize(ResizeDirection direction, ResizeResult result) override {
    const MutexLock lock(mutex_);
    ++counts_[{direction, result}];
  }
  int Count(ResizeDirection direction, ResizeResult result) {
    const MutexLock lock(mutex_);
    return counts_[{direction, result}];
  }

 private:
  Mutex mutex_;
  std::map<std::pair<ResizeDirection, ResizeResult>, int> counts_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(ResizeTest, EachAttemptIsToldWithItsResult) {
  ResizeCounter counter;
  hypervisor::FakeHypervisor hypervisor(machine_);
  runtime_.reset();
  RuntimeParts parts = FakeParts();
  parts.hypervisor = &hypervisor;
  parts.observer = &counter;
  Start(parts);
  const std::string id = Run("main", Limits(64, 500));
  ASSERT_TRUE(Update(id, Limits(64, 600)).ok());
  EXPECT_EQ(counter.Count(ResizeDirection::kGrow, ResizeResult::kOk), 0) << "nothing was to be done";
  ASSERT_TRUE(Update(id, Limits(512, 600)).ok());
  EXPECT_EQ(counter.Count(ResizeDirection::kGrow, ResizeResult::kOk), 1);
  EXPECT_EQ(counter.Count(ResizeDirection::kShrink, ResizeResult::kOk), 0);
  ASSERT_TRUE(Update(id, Limits(448, 600)).ok());
  EXPECT_EQ(counter.Count(ResizeDirection::kShrink, ResizeResult::kOk), 1);
  machine_.FailNext(hypervisor::FakeOperation::kPlugMemory, absl::ResourceExhaustedError("no room"));
  EXPECT_FALSE(Update(id, Limits(640, 600)).ok());
  EXPECT_EQ(counter.Count(ResizeDirection::kGrow, ResizeResult::kFailed), 1);
  machine_.KeepMemory(true);
  ASSERT_TRUE(Update(id, Limits(64, 600)).ok());
  EXPECT_GE(counter.Count(ResizeDirection::kShrink, ResizeResult::kOwed), 1);
  EXPECT_EQ(counter.Count(ResizeDirection::kShrink, ResizeResult::kOk), 1);
  EXPECT_EQ(counter.Count(ResizeDirection::kGrow, ResizeResult::kOk), 1);
  runtime_.reset();
}

TEST_F(ResizeTest, TheLastOfTheMemoryIsSeenToGo) {
  const std::string id = Run("main", Limits(512, 500));
  const std::int64_t large = HostLimit();
  machine_.KeepMemory(true);
  // 12 MiB: as little is not waited for.
  ASSERT_TRUE(Update(id, Limits(500, 500)).ok());
  const VmFigures kept = runtime_->ListVms().at(0);
  machine_.KeepMemory(false);
  EXPECT_FALSE(kept.resizing);
  EXPECT_EQ(kept.memory_bytes, static_cast<std::uint64_t>((256 + 376) * kMebibyte));
  EXPECT_TRUE(Eventually([&] {
    const VmFigures vm = runtime_->ListVms().at(0);
    return vm.memory_bytes == vm.wanted_memory_bytes && vm.memory_bytes < std::uint64_t{256 + 376} * kMebibyte;
  }));
  EXPECT_TRUE(Eventually([&] { return HostLimit() < large; }));
}

TEST_F(ResizeTest, WhatIsOwedIsSupersededByALaterChange) {
  const std::string id = Run("main", Limits(512, 500));
  machine_.KeepMemory(true);
  ASSERT_TRUE(Update(id, Limits(64, 500)).ok());
  ASSERT_TRUE(Update(id, Limits(512, 500)).ok());
  machine_.KeepMemory(false);
  ASSERT_TRUE(Update(id, Limits(448, 500)).ok());
  EXPECT_TRUE(Eventually([&] { return Plugged() == 312; })) << Plugged();
}

TEST_F(ResizeTest, AGuestThatKeepsItsVcpusIsAskedAgain) {
  const std::string id = Run("main", Limits(64, 2000));
  Guest(pod_).FailNext("ResizeGuest", absl::FailedPreconditionError("CPU 1 is busy"));
  ASSERT_TRUE(Update(id, Limits(64, 500)).ok());
  EXPECT_TRUE(Eventually([&] { return GuestVcpus() == 1 && Vcpus() == 1; }));
}

TEST_F(ResizeTest, LimitsInDoubtAreSentAgain) {
  const std::string id = Run("main", Limits(64, 500));
  Guest(pod_).FailNext("UpdateResources", absl::DeadlineExceededError("no answer"));
  EXPECT_TRUE(absl::IsDeadlineExceeded(Update(id, Limits(512, 500))));
  EXPECT_EQ(StatusOf(id).config.resources.memory_limit_bytes, 64 * kMebibyte);
  EXPECT_TRUE(Eventually([&] { return InForce(id) == 64 && Plugged() == 0; }));
}

TEST_F(ResizeTest, ConcurrentUpdatesConverge) {
  const std::vector<std::string> ids = {Run("one", Limits(64, 250)), Run("two", Limits(64, 250)),
                                        Run("three", Limits(64, 250))};
  std::vector<std::thread> threads;
  for (const std::string& id : ids) {
    threads.emplace_back([this, &id] {
      for (const std::int64_t mebibytes : {128, 64, 160}) EXPECT_TRUE(Update(id, Limits(mebibytes, 600)).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  // 480 and 119.5 for the guest, less 256.
  EXPECT_EQ(Plugged(), 344);
  EXPECT_EQ(GuestVcpus(), 2U);
  for (const std::string& id : ids) EXPECT_EQ(InForce(id), 160);
}

TEST_F(ResizeTest, AVmOfAnEarlierConfigurationGrowsAsFarAsItCan) {
  options_.maximum_vcpus = 16;
  options_.maximum_memory_bytes = std::uint64_t{8} << 30;
  Restart();
  Run("main", Limits(4000, 9000));
  EXPECT_EQ(Vcpus(), 4U);
  EXPECT_EQ(Plugged(), 768);
}

TEST_F(ResizeTest, PagesOfAGibibyteComeAsMemoryThatIsNotMovable) {
  options_.maximum_memory_bytes = std::uint64_t{4} << 30;
  Restart();
  const auto large = runtime_->RunPod(context_, Pod("large"));
  ASSERT_TRUE(large.ok()) << large.status();
  pod_ = *large;
  LinuxResources pages;
  pages.hugepage_limits = {{"1GB", std::uint64_t{1} << 30}};
  Run("main", pages);
  EXPECT_EQ(Plugged(), 2176);
  const auto resized = Guest(pod_).resized();
  ASSERT_TRUE(resized);
  EXPECT_FALSE(resized->unmovable_memory()) << "what comes later is movable again";
}

// ---- memory on demand ----------------------------------------------------------------------------------------------

class MemoryOnDemandTest : public ResizeTest {
 protected:
  void SetUp() override {
    options_.unlimited_memory_bytes = std::uint64_t{1} << 30;
    ResizeTest::SetUp();
  }
  std::string RunUnlimited() {
    std::string id = Run("main", {});
    AwaitBaseline();
    return id;
  }
  // What the first answer to a monitor says may be old, and does not count.
  void AwaitBaseline() {
    const int polls = Guest(pod_).call_count("Poll");
    Guest(pod_).SetMemoryNews(news_, 0);
    EXPECT_TRUE(Guest(pod_).WaitForCalls("Poll", std::max(polls, 1)));
    for (int round = 0; round < 2; ++round) {
      const int before = Guest(pod_).call_count("Poll");
      for (const ContainerStatus& container : runtime_->ListContainers({})) {
        Guest(pod_).Write(container.id, "", agent::v1::STDOUT, "x\n");
      }
      EXPECT_TRUE(Guest(pod_).WaitForCalls("Poll", before + 1));
    }
  }
  void RunShort() {
    news_.set_shortages(news_.shortages() + 1);
    Guest(pod_).SetMemoryNews(news_, 0);
  }
  void HaveSpare(std::int64_t mebibytes) {
    news_.set_surpluses(news_.surpluses() + 1);
    Guest(pod_).SetMemoryNews(news_, static_cast<std::uint64_t>(mebibytes * kMebibyte));
  }
  bool AwaitPlugged(std::int64_t mebibytes) {
    return Eventually([&] { return Plugged() == mebibytes; });
  }
  bool GuestWaitsForMore() { return Guest(pod_).resized()->memory_can_grow(); }

  agent::v1::MemoryNews news_;
};

TEST_F(MemoryOnDemandTest, AGuestThatRunsShortGetsHalfAsMuchAgainUpToTheCeiling) {
  const std::int64_t before = HostLimit();
  RunUnlimited();
  ASSERT_TRUE(Guest(pod_).resized());
  EXPECT_TRUE(GuestWaitsForMore());
  RunShort();
  ASSERT_TRUE(AwaitPlugged(256));
  EXPECT_TRUE(Eventually([&] { return HostLimit() >= before + 256; }));
  RunShort();
  ASSERT_TRUE(AwaitPlugged(512));
  EXPECT_TRUE(GuestWaitsForMore());
  RunShort();
  ASSERT_TRUE(AwaitPlugged(768)) << "the ceiling is a gibibyte";
  EXPECT_TRUE(Eventually([&] { return !GuestWaitsForMore(); })) << "who waits now waits in vain";
}

TEST_F(MemoryOnDemandTest, HalfOfWhatIsNotUsedGoesBack) {
  RunUnlimited();
  RunShort();
  ASSERT_TRUE(AwaitPlugged(256));
  RunShort();
  ASSERT_TRUE(AwaitPlugged(512));
  HaveSpare(600);
  ASSERT_TRUE(AwaitPlugged(212));
  HaveSpare(120);
  HaveSpare(400);
  EXPECT_TRUE(AwaitPlugged(12)) << "60 MiB are not worth it, 200 are";
}

TEST_F(MemoryOnDemandTest, AContainerWithALimitHasThat) {
  Run("main", Limits(64, 500));
  AwaitBaseline();
  RunShort();
  AwaitBaseline();
  EXPECT_EQ(Plugged(), 0);
  EXPECT_FALSE(Guest(pod_).resized());
  // Whoever comes has none.
  ASSERT_FALSE(Run("other", {}).empty());
  EXPECT_TRUE(GuestWaitsForMore());
}

TEST_F(MemoryOnDemandTest, WhatWasDemandedStaysOverARestart) {
  const std::string id = RunUnlimited();
  RunShort();
  ASSERT_TRUE(AwaitPlugged(256));
  Restart();
  ASSERT_TRUE(Update(id, Limits(0, 500)).ok());
  EXPECT_EQ(Plugged(), 256);
  ASSERT_TRUE(runtime_->RemoveContainer(context_, id).ok());
  EXPECT_EQ(Plugged(), 0);
}

TEST_F(MemoryOnDemandTest, AVmThatCannotGrowStaysAsItWas) {
  RunUnlimited();
  machine_.FailNext(hypervisor::FakeOperation::kPlugMemory, absl::ResourceExhaustedError("the host has none"));
  RunShort();
  AwaitBaseline();
  EXPECT_EQ(Plugged(), 0);
  RunShort();
  EXPECT_TRUE(AwaitPlugged(256)) << "asked again, it tries again";
}

}  // namespace
}  // namespace husk::sandbox
