// Which changes of pods and containers are told, in which order, and what the snapshots show.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "sandbox/event_hub.h"
#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class EventsTest : public RuntimeFixture {
 protected:
  void SetUp() override { Begin(); }

  // A process with a hub of its own, as huskd has it.
  void Begin() {
    runtime_.reset();
    subscription_.reset();
    hub_ = std::make_unique<EventHub>();
    hypervisor_ = std::make_unique<hypervisor::FakeHypervisor>(machine_);
    RuntimeParts parts = FakeParts();
    parts.events = hub_.get();
    auto runtime = NewRuntime(options_, parts);
    ASSERT_TRUE(runtime.ok()) << runtime.status();
    runtime_ = *std::move(runtime);
    ASSERT_TRUE(runtime_->Recover(context_).ok());
    subscription_ = *hub_->Subscribe([] {});
  }
  void TearDown() override { runtime_.reset(); }

  // "started ID" of all that came since.
  std::vector<std::string> Told() {
    static constexpr const char* kNames[] = {"created ", "started ", "stopped ", "deleted "};
    std::vector<std::string> told;
    while (const auto event = subscription_->Next()) {
      told.push_back(kNames[static_cast<int>(event->type)] + event->id);
      last_ = *event;
    }
    return told;
  }

  std::unique_ptr<EventHub> hub_;
  std::shared_ptr<EventSubscription> subscription_;
  Event last_;
};

TEST_F(EventsTest, TheLifeOfAPod) {
  const std::string pod = RunPod();
  EXPECT_THAT(Told(), ElementsAre("created " + pod, "started " + pod));
  EXPECT_EQ(last_.pod.state, PodState::kReady);
  EXPECT_EQ(last_.pod.config.metadata.uid, "uid-pod");
  EXPECT_EQ(last_.pod.addresses.at(0), "10.88.0.2");
  EXPECT_THAT(last_.containers, IsEmpty());

  const std::string container = CreateContainer(pod);
  EXPECT_THAT(Told(), ElementsAre("created " + container));
  EXPECT_EQ(last_.containers.at(0).state, ContainerState::kCreated);
  ASSERT_TRUE(runtime_->StartContainer(context_, container).ok());
  ASSERT_TRUE(runtime_->StartContainer(context_, container).ok());  // a repetition is no news
  EXPECT_THAT(Told(), ElementsAre("started " + container));
  EXPECT_EQ(last_.containers.at(0).state, ContainerState::kRunning);
  ASSERT_TRUE(Guest(pod).Exit(container, "", 3));
  ASSERT_TRUE(AwaitExit(container));
  EXPECT_THAT(Told(), ElementsAre("stopped " + container));
  EXPECT_EQ(last_.containers.at(0).exit_code, 3);
  EXPECT_EQ(last_.containers.at(0).finished_at, StatusOf(container).finished_at);
  ASSERT_TRUE(runtime_->RemoveContainer(context_, container).ok());
  ASSERT_TRUE(runtime_->RemoveContainer(context_, container).ok());
  EXPECT_THAT(Told(), ElementsAre("deleted " + container));
  EXPECT_THAT(last_.containers, IsEmpty());

  ASSERT_TRUE(runtime_->StopPod(context_, pod).ok());
  ASSERT_TRUE(runtime_->StopPod(context_, pod).ok());
  EXPECT_THAT(Told(), ElementsAre("stopped " + pod));
  EXPECT_EQ(last_.pod.state, PodState::kNotReady);
  ASSERT_TRUE(runtime_->RemovePod(context_, pod).ok());
  ASSERT_TRUE(runtime_->RemovePod(context_, pod).ok());
  EXPECT_THAT(Told(), ElementsAre("deleted " + pod));
  EXPECT_EQ(last_.pod.config.metadata.uid, "uid-pod");
}

TEST_F(EventsTest, APodTakesItsContainersWithIt) {
  const std::string pod = RunPod();
  const std::string container = RunContainer(pod);
  Told();
  ASSERT_TRUE(runtime_->RemovePod(context_, pod).ok());
  EXPECT_THAT(Told(), ElementsAre("stopped " + container, "stopped " + pod, "deleted " + container, "deleted " + pod));
}

TEST_F(EventsTest, TheEndOfAVmIsTheEndOfAllInIt) {
  const std::string pod = RunPod();
  const std::string running = RunContainer(pod, "running");
  const std::string created = CreateContainer(pod, "created");
  Told();
  ASSERT_TRUE(machine_.KillVm(pod));
  ASSERT_TRUE(Eventually([&] { return StateOf(pod) == PodState::kNotReady; }));
  const std::vector<std::string> told = Told();
  EXPECT_THAT(told, ::testing::UnorderedElementsAre("stopped " + running, "stopped " + created, "stopped " + pod));
  EXPECT_EQ(told.back(), "stopped " + pod);
  for (const ContainerStatus& status : last_.containers) EXPECT_EQ(status.state, ContainerState::kExited);
  ASSERT_TRUE(runtime_->StopPod(context_, pod).ok());
  EXPECT_THAT(Told(), IsEmpty());
}

TEST_F(EventsTest, APodThatNeverWasReadyIsNoNews) {
  machine_.FailNext(hypervisor::FakeOperation::kStart, absl::UnavailableError("no QEMU"));
  EXPECT_FALSE(runtime_->RunPod(context_, Pod("pod")).ok());
  EXPECT_THAT(Told(), IsEmpty());
}

TEST_F(EventsTest, AnotherHuskdTellsWhatHappenedMeanwhileAndNothingElse) {
  const std::string pod = RunPod();
  const std::string exited = RunContainer(pod, "exited");
  const std::string ends = RunContainer(pod, "ends");
  const std::string runs = RunContainer(pod, "runs");
  const std::string created = CreateContainer(pod, "created");
  ASSERT_TRUE(Guest(pod).Exit(exited, "", 0));
  ASSERT_TRUE(AwaitExit(exited));
  runtime_.reset();
  ASSERT_TRUE(Guest(pod).Exit(ends, "", 7));
  Begin();
  ASSERT_TRUE(AwaitExit(ends));
  EXPECT_THAT(Told(), ElementsAre("stopped " + ends));
  EXPECT_EQ(StatusOf(runs).state, ContainerState::kRunning);
  EXPECT_EQ(StatusOf(created).state, ContainerState::kCreated);
  Begin();
  EXPECT_THAT(Told(), IsEmpty());

  runtime_.reset();
  ASSERT_TRUE(machine_.KillVm(pod));
  Begin();
  EXPECT_THAT(Told(), ::testing::UnorderedElementsAre("stopped " + runs, "stopped " + created, "stopped " + pod));
  ASSERT_TRUE(runtime_->RemovePod(context_, pod).ok());
  EXPECT_EQ(Told().back(), "deleted " + pod);
}

}  // namespace
}  // namespace husk::sandbox
