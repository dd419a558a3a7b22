#include "sandbox/vm_size.h"

#include <gtest/gtest.h>

#include <limits>

namespace husk::sandbox {
namespace {

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

RuntimeOptions Options() {
  RuntimeOptions options;
  options.default_vcpus = 1;
  options.maximum_vcpus = 8;
  options.default_memory_bytes = 256 * kMebibyte;
  options.maximum_memory_bytes = 4096 * kMebibyte;
  return options;
}

TEST(VmSizeTest, DefaultsWithoutLimits) {
  const VmSize size = SizeVm(Options(), {}, {});
  EXPECT_EQ(size.vcpus, 1U);
  EXPECT_EQ(size.maximum_vcpus, 8U);
  EXPECT_EQ(size.memory_bytes, 256 * kMebibyte);
  EXPECT_EQ(size.maximum_memory_bytes, 4096 * kMebibyte);
}

TEST(VmSizeTest, TakesLimitsAndOverhead) {
  LinuxResources resources;
  resources.memory_limit_bytes = static_cast<std::int64_t>(1000 * kMebibyte + 1);
  resources.cpu_quota = 150'000;
  resources.cpu_period = 100'000;
  LinuxResources overhead;
  overhead.memory_limit_bytes = static_cast<std::int64_t>(64 * kMebibyte);
  overhead.cpu_quota = 60'000;
  overhead.cpu_period = 100'000;
  const VmSize size = SizeVm(Options(), resources, overhead);
  // 1000 MiB and a byte, 112 MiB for the kernel, and a 64th.
  EXPECT_EQ(size.memory_bytes, 1128 * kMebibyte);
  EXPECT_EQ(size.vcpus, 2U) << "the overhead is QEMU's";
  overhead.memory_limit_bytes = static_cast<std::int64_t>(450 * kMebibyte);
  // 130 MiB less a 64th of the overhead are the guest's, the rest is QEMU's.
  EXPECT_EQ(SizeVm(Options(), resources, overhead).memory_bytes, 1128 * kMebibyte);
  overhead.memory_limit_bytes = static_cast<std::int64_t>(640 * kMebibyte);
  EXPECT_EQ(SizeVm(Options(), resources, overhead).memory_bytes, (1000 + 2 + 640 - 320 - 10) * kMebibyte)
      << "an overhead that is larger";
}

TEST(VmSizeTest, StaysWithinBoundsWhateverIsAsked) {
  LinuxResources resources;
  resources.memory_limit_bytes = std::numeric_limits<std::int64_t>::max();
  resources.cpu_quota = std::numeric_limits<std::int64_t>::max();
  resources.cpu_period = 1;
  VmSize size = SizeVm(Options(), resources, resources);
  EXPECT_EQ(size.memory_bytes, 4096 * kMebibyte);
  EXPECT_EQ(size.vcpus, 8U);
  resources.memory_limit_bytes = 1;
  resources.cpu_quota = -1;
  size = SizeVm(Options(), resources, {});
  EXPECT_EQ(size.memory_bytes, 256 * kMebibyte);
  EXPECT_EQ(size.vcpus, 1U);
}

TEST(VmSizeTest, ABootHasTheSharesOfACpuOrThePodsOwn) {
  EXPECT_EQ(LimitsWhileBooting({.cpu_shares = 2}).cpu_shares, 1024U);
  EXPECT_EQ(LimitsWhileBooting({.cpu_shares = 4096}).cpu_shares, 4096U);
  EXPECT_EQ(LimitsWhileBooting({}).cpu_shares, 0U) << "the kernel's default stays";
  const HostLimits booting = LimitsWhileBooting({.memory_bytes = 7, .cpu_quota = 5'000, .cpu_period = 100'000});
  EXPECT_EQ(booting.memory_bytes, 7U);
  EXPECT_EQ(booting.cpu_quota, 5'000);
  EXPECT_EQ(booting.cpu_period, 100'000U);
}

TEST(VmSizeTest, TheHostGivesTheVmItsMemoryAndQemuItsOwn) {
  HostLimits limits = LimitsOnHost(256 * kMebibyte, {}, {});
  EXPECT_EQ(limits.memory_bytes, (256 + 320 + 4) * kMebibyte);
  EXPECT_EQ(limits.cpu_quota, 0);
  EXPECT_EQ(limits.cpu_shares, 0U);
  LinuxResources resources;
  resources.cpu_quota = 150'000;
  resources.cpu_period = 100'000;
  resources.cpu_shares = 1536;
  LinuxResources overhead;
  overhead.cpu_quota = 12'500;
  overhead.cpu_period = 50'000;
  overhead.memory_limit_bytes = static_cast<std::int64_t>(1000 * kMebibyte);
  limits = LimitsOnHost(256 * kMebibyte, resources, overhead);
  EXPECT_EQ(limits.memory_bytes, 1256 * kMebibyte);
  EXPECT_EQ(limits.cpu_quota, 175'000);
  EXPECT_EQ(limits.cpu_period, 100'000U);
  EXPECT_EQ(limits.cpu_shares, 1536U);
  resources.cpu_quota = -1;
  EXPECT_EQ(LimitsOnHost(256 * kMebibyte, resources, overhead).cpu_quota, -1);
}

TEST(VmSizeTest, AChangeKeepsWhatItDoesNotName) {
  LinuxResources before;
  before.cpu_shares = 100;
  before.cpu_quota = 50'000;
  before.memory_limit_bytes = 1000;
  before.memory_swap_limit_bytes = 1500;
  before.oom_score_adjustment = 7;
  before.unified = {{"memory.high", "1"}, {"pids.max", "2"}};
  before.hugepage_limits = {{"2MB", 4}, {"1GB", 5}};
  LinuxResources change;
  change.memory_limit_bytes = 2000;
  change.oom_score_adjustment = 9;
  change.unified = {{"pids.max", "3"}};
  change.hugepage_limits = {{"2MB", 0}};
  const LinuxResources after = Changed(before, change);
  EXPECT_EQ(after.cpu_shares, 100);
  EXPECT_EQ(after.cpu_quota, 50'000);
  EXPECT_EQ(after.memory_limit_bytes, 2000);
  EXPECT_EQ(after.memory_swap_limit_bytes, 2500) << "the swap stays 500";
  EXPECT_EQ(after.oom_score_adjustment, 7);
  EXPECT_EQ(after.unified, (StringMap{{"memory.high", "1"}, {"pids.max", "3"}}));
  EXPECT_EQ(after.hugepage_limits, (std::map<std::string, std::uint64_t>{{"2MB", 0}, {"1GB", 5}}));
  change.memory_swap_limit_bytes = 2000;
  EXPECT_EQ(Changed(before, change).memory_swap_limit_bytes, 2000);
}

TEST(VmSizeTest, HugePagesNeedMemoryBesideThemselves) {
  const auto pages = [](const char* size, std::uint64_t mebibytes) {
    LinuxResources resources;
    resources.hugepage_limits[size] = mebibytes * kMebibyte;
    return resources;
  };
  EXPECT_EQ(MemoryForHugePages({}), 0U);
  EXPECT_EQ(MemoryForHugePages({pages("2MB", 0), pages("1GB", 0)}), 0U);
  EXPECT_EQ(MemoryForHugePages({pages("2MB", 16)}), 128 * kMebibyte);
  EXPECT_EQ(MemoryForHugePages({pages("2MB", 100), pages("2MB", 100)}), 256 * kMebibyte);
  EXPECT_EQ(MemoryForHugePages({pages("2MB", 128)}), 256 * kMebibyte) << "its descriptors need some";
  EXPECT_EQ(MemoryForHugePages({pages("1GB", 1024)}), (2048 + 128) * kMebibyte) << "one more";
  LinuxResources endless;
  endless.hugepage_limits["2MB"] = std::numeric_limits<std::uint64_t>::max();
  EXPECT_GE(MemoryForHugePages({endless, endless}), std::uint64_t{1} << 60);
}

TEST(VmSizeTest, FillsLimitsInFromTheHost) {
  RuntimeOptions options;
  options.default_memory_bytes = 4 * kMebibyte + 1;
  const auto filled = WithHostLimits(options);
  ASSERT_TRUE(filled.ok()) << filled.status();
  EXPECT_GE(filled->maximum_vcpus, 1U);
  EXPECT_GT(filled->maximum_memory_bytes, 0U);
  EXPECT_EQ(filled->default_memory_bytes, 6 * kMebibyte);
  options.default_vcpus = 5;
  options.maximum_vcpus = 4;
  EXPECT_FALSE(WithHostLimits(options).ok());
}

}  // namespace
}  // namespace husk::sandbox
