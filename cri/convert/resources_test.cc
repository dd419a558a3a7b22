#include "cri/convert/resources.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"

namespace husk::cri {
namespace {

using Resources = ::runtime::v1::LinuxContainerResources;

TEST(ResourcesFromProtoTest, TakesWhatTheKubeletSends) {
  Resources resources;
  resources.set_cpu_period(100'000);
  resources.set_cpu_quota(-1);
  resources.set_cpu_shares(2);
  resources.set_memory_limit_in_bytes(10 << 20);
  resources.set_memory_swap_limit_in_bytes(10 << 20);
  resources.set_oom_score_adj(-997);
  resources.set_cpuset_cpus("0-1,4");
  resources.set_cpuset_mems("0");
  (*resources.mutable_unified())["memory.oom.group"] = "1";
  (*resources.mutable_unified())["hugetlb.2MB.max"] = "0";
  resources.add_hugepage_limits()->set_page_size("2MB");
  const auto taken = ResourcesFromProto(resources, "linux");
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->cpu_quota, -1);
  EXPECT_EQ(taken->unified.size(), 2U);
  EXPECT_TRUE(ResourcesFromProto(Resources(), "linux").ok());
}

TEST(ResourcesFromProtoTest, RefusesNonsenseByTheFieldsName) {
  const auto unified = [](const char* name, const char* value) {
    return [=](Resources& r) { (*r.mutable_unified())[name] = value; };
  };
  const std::vector<std::pair<std::string, std::function<void(Resources&)>>> cases = {
      {"linux.cpu_period", [](Resources& r) { r.set_cpu_period(999); }},
      {"linux.cpu_period", [](Resources& r) { r.set_cpu_period(1'000'001); }},
      {"linux.cpu_period", [](Resources& r) { r.set_cpu_period(-1); }},
      {"linux.cpu_quota", [](Resources& r) { r.set_cpu_quota(-2); }},
      {"linux.cpu_quota", [](Resources& r) { r.set_cpu_quota(1); }},
      {"linux.cpu_quota", [](Resources& r) { r.set_cpu_quota(std::numeric_limits<std::int64_t>::max()); }},
      {"linux.cpu_shares", [](Resources& r) { r.set_cpu_shares(1); }},
      {"linux.cpu_shares", [](Resources& r) { r.set_cpu_shares(262'145); }},
      {"linux.memory_limit_in_bytes", [](Resources& r) { r.set_memory_limit_in_bytes(-1); }},
      {"linux.memory_limit_in_bytes", [](Resources& r) { r.set_memory_limit_in_bytes(1); }},
      {"linux.memory_swap_limit_in_bytes", [](Resources& r) { r.set_memory_swap_limit_in_bytes(-2); }},
      {"linux.memory_swap_limit_in_bytes",
       [](Resources& r) {
         r.set_memory_limit_in_bytes(2 << 20);
         r.set_memory_swap_limit_in_bytes(1 << 20);
       }},
      {"linux.oom_score_adj", [](Resources& r) { r.set_oom_score_adj(1001); }},
      {"linux.oom_score_adj", [](Resources& r) { r.set_oom_score_adj(-1001); }},
      {"linux.cpuset_cpus", [](Resources& r) { r.set_cpuset_cpus("0-"); }},
      {"linux.cpuset_cpus", [](Resources& r) { r.set_cpuset_cpus("3-1"); }},
      {"linux.cpuset_cpus", [](Resources& r) { r.set_cpuset_cpus("0,,1"); }},
      {"linux.cpuset_cpus", [](Resources& r) { r.set_cpuset_cpus("4294967296"); }},
      {"linux.cpuset_mems", [](Resources& r) { r.set_cpuset_mems(" 0"); }},
      {"linux.unified[../memory.max]", unified("../memory.max", "1")},
      {"linux.unified[memory/x.max]", unified("memory/x.max", "1")},
      {"linux.unified[cgroup.procs]", unified("cgroup.procs", "1")},
      {"linux.unified[memory]", unified("memory", "1")},
      {"linux.unified[memory..max]", unified("memory..max", "1")},
      {"linux.unified[memory.max]", unified("memory.max", "")},
  };
  for (const auto& [field, spoil] : cases) {
    Resources resources;
    spoil(resources);
    const Status status = ResourcesFromProto(resources, "linux").status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << field << ": " << status;
    EXPECT_TRUE(absl::StartsWith(status.message(), field + ": ")) << status;
  }
}

}  // namespace
}  // namespace husk::cri
