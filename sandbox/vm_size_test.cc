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
  EXPECT_EQ(size.memory_bytes, 1066 * kMebibyte);
  EXPECT_EQ(size.vcpus, 3U);
  EXPECT_EQ(SizeVm(Options(), resources, {}).vcpus, 2U);
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
