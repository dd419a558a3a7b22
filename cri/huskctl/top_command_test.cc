#include "cri/huskctl/top_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace husk::huskctl {
namespace {

namespace api = ::runtime::v1;
using ::testing::ElementsAre;
using ::testing::SizeIs;

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

TopPod Web() {
  TopPod pod;
  pod.stats.mutable_attributes()->set_id("pod-id");
  pod.stats.mutable_attributes()->mutable_metadata()->set_name("web");
  pod.stats.mutable_attributes()->mutable_metadata()->set_namespace_("shop");
  pod.stats.mutable_linux()->mutable_cpu()->mutable_usage_nano_cores()->set_value(250'000'000);
  api::ContainerStats& container = *pod.stats.mutable_linux()->add_containers();
  container.mutable_attributes()->set_id("container-id");
  container.mutable_attributes()->mutable_metadata()->set_name("main");
  container.mutable_cpu()->mutable_usage_nano_cores()->set_value(125'000'000);
  container.mutable_memory()->mutable_working_set_bytes()->set_value(12 * kMebibyte);
  pod.vm = nlohmann::json{
      {"vcpus", 4},
      {"onlineVcpus", 1},
      {"wantedVcpus", 2},
      {"usedMemoryBytes", 80 * kMebibyte},
      {"memoryBytes", 512 * kMebibyte},
      {"requestedMemoryBytes", 256 * kMebibyte},
      {"wantedMemoryBytes", 256 * kMebibyte},
      {"resizing",
       true}}.dump();
  api::ContainerStatus& status = pod.containers.emplace_back();
  status.set_id("container-id");
  api::LinuxContainerResources& limits = *status.mutable_resources()->mutable_linux();
  limits.set_cpu_quota(50'000);
  limits.set_cpu_period(100'000);
  limits.set_memory_limit_in_bytes(128 * kMebibyte);
  return pod;
}

TEST(Top, ShowsAPodAndItsContainers) {
  const auto rows = TopRows({Web()});
  ASSERT_THAT(rows, SizeIs(3));
  EXPECT_THAT(rows[1], ElementsAre("web", "", "1 / 2", "0.250", "80.0 MiB / 512.0 MiB / 256.0 MiB", "", "owed"));
  EXPECT_THAT(rows[2], ElementsAre("web", "main", "", "0.125", "12.0 MiB", "0.500 / 128.0 MiB", ""));
  const nlohmann::json json = TopJson({Web()});
  ASSERT_EQ(json.size(), 1U);
  const nlohmann::json pod = {{"id", "pod-id"},
                              {"name", "web"},
                              {"namespace", "shop"},
                              {"cpuNanoCores", 250'000'000},
                              {"vcpus", 4},
                              {"onlineVcpus", 1},
                              {"wantedVcpus", 2},
                              {"usedMemoryBytes", 80 * kMebibyte},
                              {"memoryBytes", 512 * kMebibyte},
                              {"requestedMemoryBytes", 256 * kMebibyte},
                              {"wantedMemoryBytes", 256 * kMebibyte},
                              {"resizing", true}};
  EXPECT_EQ(json[0]["pod"], pod);
  ASSERT_EQ(json[0]["containers"].size(), 1U);
  const nlohmann::json container = {{"id", "container-id"},        {"name", "main"},
                                    {"cpuNanoCores", 125'000'000}, {"usedMemoryBytes", 12 * kMebibyte},
                                    {"cpuLimitCores", 0.5},        {"memoryLimitBytes", 128 * kMebibyte}};
  EXPECT_EQ(json[0]["containers"][0], container);
}

TEST(Top, WhatIsNotKnownIsADash) {
  TopPod pod = Web();
  pod.vm = "not JSON";
  pod.stats.mutable_linux()->clear_cpu();
  pod.stats.mutable_linux()->mutable_containers(0)->clear_memory();
  pod.containers.clear();
  const auto rows = TopRows({pod});
  EXPECT_THAT(rows[1], ElementsAre("web", "", "- / -", "-", "- / - / -", "", ""));
  EXPECT_THAT(rows[2], ElementsAre("web", "main", "", "0.125", "-", "-", ""));
  const nlohmann::json json = TopJson({pod});
  EXPECT_FALSE(json[0]["pod"].contains("memoryBytes"));
  EXPECT_FALSE(json[0]["containers"][0].contains("memoryLimitBytes"));
}

TEST(Top, AContainerWithoutLimitsHasNone) {
  TopPod pod = Web();
  pod.containers[0].clear_resources();
  EXPECT_EQ(TopRows({pod})[2][5], "none / none");
  EXPECT_THAT(TopRows({}), SizeIs(1));
}

}  // namespace
}  // namespace husk::huskctl
