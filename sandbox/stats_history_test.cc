#include "sandbox/stats_history.h"

#include <gtest/gtest.h>

#include <limits>

namespace husk::sandbox {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kCreated = 1'000 * kSecond;
constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;
constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

class StatsHistoryTest : public ::testing::Test {
 protected:
  // The pod is a hundred seconds old.
  StatsHistoryTest() { sample_.timestamp = kCreated + 100 * kSecond; }

  agent::v1::ContainerStats& Said() {
    if (sample_.guest.containers_size() == 0) sample_.guest.add_containers()->set_container_id("c");
    return *sample_.guest.mutable_containers(0);
  }
  agent::v1::GuestStats& Guest() { return *sample_.guest.mutable_guest(); }
  const PodFigures& Add() {
    history_.Add(sample_, bounds_);
    return history_.figures();
  }
  const ContainerFigures& AddContainer() { return Add().containers.at("c"); }
  void Later(std::int64_t seconds) { sample_.timestamp += seconds * kSecond; }

  StatsSample sample_;
  StatsBounds bounds_{.created_at = kCreated,
                      .vcpus = 2,
                      .memory_bytes = 256 * kMebibyte,
                      .scratch_bytes = 1024 * kMebibyte,
                      .containers = {"c"}};
  StatsHistory history_;
};

TEST_F(StatsHistoryTest, HonestFiguresPass) {
  auto& cgroup = *Said().mutable_cgroup();
  cgroup.mutable_cpu()->set_usage_nanoseconds(5 * kSecond);
  cgroup.mutable_cpu()->mutable_pressure()->mutable_some()->set_average10(12.5);
  cgroup.mutable_memory()->set_usage_bytes(10 * kMebibyte);
  cgroup.mutable_memory()->set_inactive_file_bytes(4 * kMebibyte);
  cgroup.mutable_memory()->set_anonymous_bytes(3 * kMebibyte);
  cgroup.set_processes(3);
  Said().mutable_writable_layer()->set_used_bytes(7);
  Said().mutable_writable_layer()->set_age_nanoseconds(2 * kSecond);
  const ContainerFigures& container = AddContainer();
  EXPECT_EQ(container.cgroup.cpu.usage_nanoseconds, 5 * kSecond);
  EXPECT_DOUBLE_EQ(container.cgroup.cpu.pressure->some.average10, 12.5);
  EXPECT_EQ(container.cgroup.memory.working_set_bytes, 6 * kMebibyte);
  EXPECT_EQ(container.cgroup.memory.resident_bytes, 3 * kMebibyte);
  EXPECT_EQ(container.cgroup.processes, 3U);
  EXPECT_EQ(container.writable_layer->used_bytes, 7U);
  EXPECT_EQ(container.writable_layer->timestamp, sample_.timestamp - 2 * kSecond);
  EXPECT_FALSE(container.cgroup.cpu.usage_nano_cores.has_value()) << "of one sample";
}

TEST_F(StatsHistoryTest, WhatTheGuestUsesIsWhatItHasNotLeft) {
  Guest().set_memory_total_bytes(200 * kMebibyte);
  EXPECT_FALSE(Add().guest_memory_used_bytes) << "half of it tells nothing";
  Guest().set_memory_available_bytes(150 * kMebibyte);
  EXPECT_EQ(Add().guest_memory_used_bytes, 50 * kMebibyte);
  Guest().set_memory_available_bytes(201 * kMebibyte);
  EXPECT_FALSE(Add().guest_memory_used_bytes) << "more than all";
  Guest().set_memory_total_bytes(kNever);
  EXPECT_FALSE(Add().guest_memory_used_bytes) << "more than the VM can have";
}

TEST_F(StatsHistoryTest, NanoCoresComeOfTwoSamples) {
  Said().mutable_cgroup()->mutable_cpu()->set_usage_nanoseconds(10 * kSecond);
  AddContainer();
  Later(2);
  Said().mutable_cgroup()->mutable_cpu()->set_usage_nanoseconds(11 * kSecond);
  EXPECT_EQ(AddContainer().cgroup.cpu.usage_nano_cores, 500'000'000U);
  // Too soon to tell anything new.
  sample_.timestamp += 1000;
  Said().mutable_cgroup()->mutable_cpu()->set_usage_nanoseconds(11 * kSecond + 900);
  EXPECT_EQ(AddContainer().cgroup.cpu.usage_nano_cores, 500'000'000U);
}

TEST_F(StatsHistoryTest, Agt04CountersNeverRunBackwards) {
  auto& cgroup = *Said().mutable_cgroup();
  cgroup.mutable_cpu()->set_usage_nanoseconds(5 * kSecond);
  cgroup.mutable_memory()->set_page_faults(100);
  cgroup.mutable_io()->set_written_bytes(1000);
  auto& interface = *Guest().add_interfaces();
  interface.set_name("eth0");
  interface.set_sent_bytes(500);
  AddContainer();
  Later(10);
  cgroup.mutable_cpu()->set_usage_nanoseconds(4 * kSecond);
  cgroup.mutable_memory()->set_page_faults(3);
  cgroup.mutable_io()->set_written_bytes(0);
  interface.set_sent_bytes(1);
  const PodFigures& pod = Add();
  const ContainerFigures& container = pod.containers.at("c");
  EXPECT_EQ(container.cgroup.cpu.usage_nanoseconds, 5 * kSecond);
  EXPECT_EQ(container.cgroup.cpu.usage_nano_cores, 0U);
  EXPECT_EQ(container.cgroup.memory.page_faults, 100U);
  EXPECT_EQ(container.cgroup.io.written_bytes, 1000U);
  ASSERT_EQ(pod.interfaces.size(), 1U);
  EXPECT_EQ(pod.interfaces[0].sent_bytes, 500U);
}

TEST_F(StatsHistoryTest, Agt04AbsurdProcessorTimeIsWhatTheHostSaysOrLeftOut) {
  Said().mutable_cgroup()->mutable_cpu()->set_usage_nanoseconds(kNever);
  EXPECT_FALSE(AddContainer().cgroup.cpu.usage_nanoseconds.has_value());
  // Two processors cannot have spent more than 200 seconds in 100.
  Said().mutable_cgroup()->mutable_cpu()->set_usage_nanoseconds(300 * kSecond);
  sample_.host.cpu_nanoseconds = 40 * kSecond;
  EXPECT_EQ(AddContainer().cgroup.cpu.usage_nanoseconds, 40 * kSecond);
  Later(1);
  Said().mutable_cgroup()->mutable_cpu()->set_usage_nanoseconds(30 * kSecond);
  EXPECT_EQ(AddContainer().cgroup.cpu.usage_nanoseconds, 40 * kSecond);
}

TEST_F(StatsHistoryTest, Agt04AbsurdBytesAndCountsAreLeftOut) {
  auto& cgroup = *Said().mutable_cgroup();
  cgroup.mutable_memory()->set_usage_bytes(kNever);
  cgroup.mutable_memory()->set_inactive_file_bytes(kNever);
  cgroup.mutable_memory()->set_anonymous_bytes(257 * kMebibyte);
  cgroup.mutable_memory()->set_page_faults(kNever);
  cgroup.mutable_io()->set_read_bytes(kNever);
  cgroup.set_processes(kNever);
  cgroup.mutable_memory()->mutable_pressure()->mutable_some()->set_total_nanoseconds(kNever);
  Said().mutable_writable_layer()->set_used_bytes(kNever);
  auto& interface = *Guest().add_interfaces();
  interface.set_name("eth0");
  interface.set_sent_bytes(kNever);
  interface.set_received_bytes(5);
  const PodFigures& pod = Add();
  const ContainerFigures& container = pod.containers.at("c");
  EXPECT_FALSE(container.cgroup.memory.usage_bytes.has_value());
  EXPECT_FALSE(container.cgroup.memory.working_set_bytes.has_value());
  EXPECT_FALSE(container.cgroup.memory.resident_bytes.has_value());
  EXPECT_FALSE(container.cgroup.memory.page_faults.has_value());
  EXPECT_FALSE(container.cgroup.memory.pressure.has_value());
  EXPECT_FALSE(container.cgroup.io.read_bytes.has_value());
  EXPECT_FALSE(container.cgroup.processes.has_value());
  EXPECT_FALSE(container.writable_layer.has_value());
  EXPECT_EQ(pod.interfaces.at(0).sent_bytes, 0U);
  EXPECT_EQ(pod.interfaces.at(0).received_bytes, 5U);
  // The working set is never less than nothing.
  cgroup.mutable_memory()->set_usage_bytes(1);
  EXPECT_EQ(AddContainer().cgroup.memory.working_set_bytes, 0U);
}

TEST_F(StatsHistoryTest, Agt04NamesAndNumbersThatMakeNoSense) {
  Said().mutable_cgroup()->mutable_cpu()->mutable_pressure()->mutable_some()->set_average10(
      std::numeric_limits<double>::quiet_NaN());
  Said().mutable_cgroup()->mutable_cpu()->mutable_pressure()->mutable_some()->set_average60(1e300);
  Said().mutable_writable_layer()->set_age_nanoseconds(kNever);
  sample_.guest.add_containers()->set_container_id("of-another-pod");
  for (const char* name : {"", "a/b", "name\n", "much-too-long-a-name", "eth0", "eth0", "\xff"}) {
    Guest().add_interfaces()->set_name(name);
  }
  const PodFigures& pod = Add();
  EXPECT_EQ(pod.containers.size(), 1U);
  ASSERT_EQ(pod.interfaces.size(), 1U);
  EXPECT_EQ(pod.interfaces[0].name, "eth0");
  const ContainerFigures& container = pod.containers.at("c");
  EXPECT_EQ(container.cgroup.cpu.pressure->some.average10, 0);
  EXPECT_EQ(container.cgroup.cpu.pressure->some.average60, 100);
  EXPECT_GT(container.writable_layer->timestamp, kCreated - 2 * kSecond);
}

TEST_F(StatsHistoryTest, AContainerThatIsNotNamedKeepsItsFiguresUntilItIsRemoved) {
  Said().mutable_cgroup()->mutable_cpu()->set_usage_nanoseconds(7);
  AddContainer();
  sample_.guest.clear_containers();
  EXPECT_EQ(AddContainer().cgroup.cpu.usage_nanoseconds, 7U);
  bounds_.containers.clear();
  EXPECT_TRUE(Add().containers.empty());
}

TEST_F(StatsHistoryTest, APodsProcessorsAndMemoryAreTheVmsOnTheHostWhereThatIsKnown) {
  auto& cgroup = *Guest().mutable_containers();
  cgroup.mutable_cpu()->set_usage_nanoseconds(3);
  cgroup.mutable_memory()->set_usage_bytes(100);
  cgroup.mutable_memory()->set_inactive_file_bytes(10);
  cgroup.set_processes(4);
  const PodFigures& pod = Add();
  EXPECT_EQ(pod.cgroup.cpu.usage_nanoseconds, 3U);
  EXPECT_EQ(pod.cgroup.memory.working_set_bytes, 90U);
  EXPECT_EQ(pod.cgroup.processes, 4U);
  sample_.host = {.cpu_nanoseconds = 50,
                  .memory_bytes = 1000,
                  .inactive_file_bytes = 200,
                  .anonymous_bytes = 700,
                  .page_faults = 9,
                  .major_page_faults = 1};
  Add();
  EXPECT_EQ(pod.cgroup.cpu.usage_nanoseconds, 50U);
  EXPECT_EQ(pod.cgroup.memory.usage_bytes, 1000U);
  EXPECT_EQ(pod.cgroup.memory.working_set_bytes, 800U);
  EXPECT_EQ(pod.cgroup.memory.resident_bytes, 700U);
  EXPECT_EQ(pod.cgroup.memory.page_faults, 9U);
  EXPECT_EQ(pod.cgroup.processes, 4U);
}

}  // namespace
}  // namespace husk::sandbox
