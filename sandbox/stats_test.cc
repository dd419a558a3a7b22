// Statistics through the runtime: who is asked, who is waited for, who is listed.
#include <gmock/gmock.h>

#include <chrono>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

class StatsTest : public RuntimeFixture {
 protected:
  static agent::v1::StatsResponse Using(const std::string& container_id, std::uint64_t cpu_nanoseconds) {
    agent::v1::StatsResponse stats;
    auto& container = *stats.add_containers();
    container.set_container_id(container_id);
    container.mutable_cgroup()->mutable_cpu()->set_usage_nanoseconds(cpu_nanoseconds);
    container.mutable_cgroup()->mutable_memory()->set_usage_bytes(4096);
    container.mutable_writable_layer()->set_used_bytes(8192);
    container.mutable_writable_layer()->set_inodes(3);
    stats.mutable_guest()->add_interfaces()->set_name("eth0");
    return stats;
  }
  ContainerStats Of(const std::string& container_id) {
    const auto stats = runtime_->GetContainerStats(context_, container_id);
    EXPECT_TRUE(stats.ok()) << stats.status();
    return stats.value_or(ContainerStats());
  }
};

TEST_F(StatsTest, AreWhatTheGuestSays) {
  const std::string pod_id = RunPod();
  const std::string id = RunContainer(pod_id);
  Guest(pod_id).SetStats(Using(id, 1000));
  const ContainerStats stats = Of(id.substr(0, 10));
  EXPECT_EQ(stats.status.id, id);
  EXPECT_GT(stats.timestamp, 0);
  EXPECT_EQ(stats.figures.cgroup.cpu.usage_nanoseconds, 1000U);
  EXPECT_EQ(stats.figures.writable_layer->inodes, 3U);
  const auto pod = runtime_->GetPodStats(context_, pod_id);
  ASSERT_TRUE(pod.ok()) << pod.status();
  EXPECT_EQ(pod->status.id, pod_id);
  EXPECT_EQ(pod->default_interface, "eth0");
  EXPECT_THAT(pod->containers, SizeIs(1));
  EXPECT_THAT(pod->figures.interfaces, SizeIs(1));
}

TEST_F(StatsTest, UnknownIdsAreNotFound) {
  EXPECT_TRUE(absl::IsNotFound(runtime_->GetPodStats(context_, "none").status()));
  EXPECT_TRUE(absl::IsNotFound(runtime_->GetContainerStats(context_, "none").status()));
  EXPECT_THAT(runtime_->ListPodStats(context_, {}), IsEmpty());
  EXPECT_THAT(runtime_->ListContainerStats(context_, {}), IsEmpty());
}

TEST_F(StatsTest, ListsTakeFiltersAndHaveWhatRuns) {
  const std::string first = RunPod("first");
  const std::string second = RunPod("second");
  const std::string running = RunContainer(first, "running");
  const std::string created = CreateContainer(first, "created");
  RunContainer(second, "other");
  EXPECT_THAT(runtime_->ListPodStats(context_, {}), SizeIs(2));
  EXPECT_THAT(runtime_->ListPodStats(context_, {.id = first}), SizeIs(1));
  EXPECT_THAT(runtime_->ListPodStats(context_, {.labels = {{"name", "second"}}}), SizeIs(1));
  EXPECT_THAT(runtime_->ListPodStats(context_, {.labels = {{"name", "third"}}}), IsEmpty());
  EXPECT_THAT(runtime_->ListContainerStats(context_, {}), SizeIs(2));
  const auto one = runtime_->ListContainerStats(context_, {.pod_id = first});
  ASSERT_THAT(one, SizeIs(1));
  EXPECT_EQ(one[0].status.id, running);
  EXPECT_THAT(runtime_->ListContainerStats(context_, {.id = created}), IsEmpty());
  ASSERT_TRUE(runtime_->StopPod(context_, second).ok());
  EXPECT_THAT(runtime_->ListPodStats(context_, {}), SizeIs(1));
  EXPECT_THAT(runtime_->ListContainerStats(context_, {}), SizeIs(1));
}

TEST_F(StatsTest, OfAContainerThatHasExitedProcessorTimeAndFilesStay) {
  const std::string pod_id = RunPod();
  const std::string id = RunContainer(pod_id);
  Guest(pod_id).SetStats(Using(id, 1000));
  ASSERT_TRUE(Guest(pod_id).Exit(id, "", 0));
  ASSERT_TRUE(AwaitExit(id));
  ContainerStats stats = Of(id);
  EXPECT_EQ(stats.figures.cgroup.cpu.usage_nanoseconds, 1000U);
  EXPECT_EQ(stats.figures.writable_layer->used_bytes, 8192U);
  EXPECT_FALSE(stats.figures.cgroup.memory.usage_bytes.has_value());
  // The last figures outlive the VM.
  const std::int64_t timestamp = stats.timestamp;
  ASSERT_TRUE(runtime_->StopPod(context_, pod_id).ok());
  stats = Of(id);
  EXPECT_EQ(stats.timestamp, timestamp);
  EXPECT_EQ(stats.figures.cgroup.cpu.usage_nanoseconds, 1000U);
}

TEST_F(StatsTest, Agt05ASilentGuestDelaysNoList) {
  const std::string silent = RunPod("silent");
  const std::string lively = RunPod("lively");
  const std::string silent_container = RunContainer(silent);
  const std::string lively_container = RunContainer(lively);
  Guest(silent).SetStats(Using(silent_container, 1000));
  Guest(lively).SetStats(Using(lively_container, 2000));
  ASSERT_THAT(runtime_->ListContainerStats(context_, {}), SizeIs(2));
  const std::int64_t last_answer = Of(silent_container).timestamp;
  Guest(silent).Block("Stats");
  // Older than what counts as fresh.
  SleepFor(context_, std::chrono::milliseconds(600)).IgnoreError();
  (void)runtime_->ListContainerStats(context_, {});  // has waited in vain
  ASSERT_TRUE(Guest(silent).WaitForCalls("Stats", 2));

  // The silent guest's call hangs for as long as it may, 20 seconds: forty lists that waited for it could not be made
  // meanwhile.
  const int asked = Guest(silent).call_count("Stats");
  for (int i = 0; i < 40; ++i) {
    for (const ContainerStats& stats : runtime_->ListContainerStats(context_, {})) {
      ASSERT_GT(stats.timestamp, 0);
      if (stats.status.id == silent_container) {
        EXPECT_EQ(stats.timestamp, last_answer);
        EXPECT_EQ(stats.figures.cgroup.cpu.usage_nanoseconds, 1000U);
      }
    }
  }
  EXPECT_EQ(Guest(silent).call_count("Stats"), asked) << "asked again while it owes an answer";
  // It is heard again as soon as it speaks.
  Guest(silent).SetStats(Using(silent_container, 3000));
  Guest(silent).Release("Stats");
  EXPECT_TRUE(Eventually([&] { return Of(silent_container).figures.cgroup.cpu.usage_nanoseconds == 3000U; }));
}

TEST_F(StatsTest, APodIsStoppedWhileItsGuestIsAsked) {
  const std::string pod_id = RunPod();
  RunContainer(pod_id);
  Guest(pod_id).Block("Stats");
  (void)runtime_->ListPodStats(context_, {});
  ASSERT_TRUE(Guest(pod_id).WaitForCalls("Stats", 1));
  ASSERT_TRUE(runtime_->RemovePod(context_, pod_id).ok());
  ExpectNothingLeft();
}

TEST_F(StatsTest, AFailedQuestionLeavesTheLastFigures) {
  const std::string pod_id = RunPod();
  const std::string id = RunContainer(pod_id);
  Guest(pod_id).FailNext("Stats", absl::InternalError("no"));
  EXPECT_EQ(Of(id).timestamp, 0);
  Guest(pod_id).SetStats(Using(id, 1000));
  EXPECT_EQ(Of(id).figures.cgroup.cpu.usage_nanoseconds, 1000U);
}

}  // namespace
}  // namespace husk::sandbox
