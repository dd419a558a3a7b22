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

StatusOr<sandbox::LinuxResources> Pages(const std::vector<std::pair<std::string, std::uint64_t>>& limits) {
  Resources resources;
  for (const auto& [size, limit] : limits) {
    auto* const added = resources.add_hugepage_limits();
    added->set_page_size(size);
    added->set_limit(limit);
  }
  return ResourcesFromProto(resources, "linux");
}

TEST(ResourcesFromProtoTest, HugePagesOfAnySpelling) {
  // Zero for every size that a kubelet's host can have.
  EXPECT_TRUE(Pages({{"64KB", 0}, {"2MB", 0}, {"32MB", 0}, {"512MB", 0}, {"1GB", 0}, {"16GB", 0}}).ok());
  const auto taken = Pages({{"2Mi", 4 << 20}, {"1048576KB", 0}});
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->hugepage_limits, (std::map<std::string, std::uint64_t>{{"2MB", 4 << 20}, {"1GB", 0}}));
  Resources out;
  ResourcesToProto(*taken, &out);
  ASSERT_EQ(out.hugepage_limits_size(), 2);
  EXPECT_EQ(out.hugepage_limits(0).page_size(), "1GB");
  EXPECT_EQ(out.hugepage_limits(1).limit(), 4U << 20);
}

TEST(ResourcesFromProtoTest, HugePagesThatMakeNoSenseAreRefusedByTheFieldsName) {
  for (const char* size : {"", "MB", "2", "2mb", "2MB;", "3MB", "0MB", "-2MB", "+2MB", " 2MB", "2 MB", "2TB", "2MiB",
                           "99999999MB", "2.0MB", "hugepages-2Mi", "\xff"}) {
    const Status refused = Pages({{size, 0}}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << size << ": " << refused;
    EXPECT_TRUE(absl::StartsWith(refused.message(), "linux.hugepage_limits[")) << refused;
  }
  EXPECT_FALSE(Pages({{"2MB", 1}}).ok());
  EXPECT_FALSE(Pages({{"2MB", (2 << 20) - 1}}).ok());
  EXPECT_FALSE(Pages({{"2MB", std::numeric_limits<std::uint64_t>::max()}}).ok());
  EXPECT_FALSE(Pages({{"2MB", std::uint64_t{1} << 63}}).ok());
  EXPECT_FALSE(Pages({{"2MB", 0}, {"2MB", 0}}).ok());
  EXPECT_FALSE(Pages({{"2MB", 0}, {"2048KB", 2 << 20}}).ok()) << "the same size in other words";
}

}  // namespace
}  // namespace husk::cri
