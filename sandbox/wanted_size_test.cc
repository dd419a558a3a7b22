#include "sandbox/wanted_size.h"

#include <gtest/gtest.h>

#include <limits>

#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

RuntimeOptions Options() {
  RuntimeOptions options;
  options.default_vcpus = 1;
  options.maximum_vcpus = 8;
  options.unlimited_vcpus = 3;
  options.default_memory_bytes = 256 * kMebibyte;
  options.maximum_memory_bytes = 4096 * kMebibyte;
  return options;
}

// 0: no limit.
LinuxResources Limits(std::int64_t mebibytes, std::int64_t milli_cpus) {
  LinuxResources resources;
  resources.memory_limit_bytes = mebibytes << 20;
  if (milli_cpus > 0) {
    resources.cpu_quota = milli_cpus * 100;
    resources.cpu_period = 100'000;
  }
  return resources;
}

LinuxResources Pages(const char* size, std::uint64_t mebibytes) {
  LinuxResources resources;
  resources.hugepage_limits = {{size, mebibytes * kMebibyte}};
  return resources;
}

std::uint64_t Mebibytes(const PodNeeds& needs) {
  return SizeWanted(Options(), needs).memory_bytes / kMebibyte;
}
std::uint32_t Vcpus(const PodNeeds& needs) {
  return SizeWanted(Options(), needs).vcpus;
}

TEST(WantedSizeTest, ThePodsAnnouncementOrTheContainersTogetherWhicheverIsMore) {
  // 112 MiB and a 64th are the guest's.
  EXPECT_EQ(Mebibytes({.resources = Limits(640, 0), .overhead = {}, .containers = {}}), 640U + 112 + 10);
  EXPECT_EQ(Mebibytes({.resources = Limits(640, 0), .overhead = {}, .containers = {Limits(64, 0)}}), 640U + 112 + 10);
  EXPECT_EQ(Mebibytes({.resources = Limits(64, 0), .overhead = {}, .containers = {Limits(320, 0), Limits(320, 0)}}),
            640U + 112 + 10);
  EXPECT_EQ(Vcpus({.resources = Limits(0, 1500), .overhead = {}, .containers = {Limits(0, 500)}}), 2U);
  EXPECT_EQ(Vcpus({.resources = Limits(0, 500), .overhead = {}, .containers = {Limits(0, 1500), Limits(0, 600)}}), 3U);
  EXPECT_EQ(Vcpus({.resources = Limits(0, 1800), .overhead = Limits(0, 300), .containers = {}}), 2U)
      << "the overhead is QEMU's";
}

TEST(WantedSizeTest, WithoutLimitsItIsTheDefaultAndTheShareOfTheNode) {
  EXPECT_EQ(Mebibytes({}), 256U);
  EXPECT_EQ(Vcpus({}), 3U);
  EXPECT_EQ(Mebibytes({.resources = {}, .overhead = {}, .containers = {Limits(0, 0)}}), 256U);
  EXPECT_EQ(Vcpus({.resources = {}, .overhead = {}, .containers = {Limits(0, 0)}}), 3U);
  // One without a limit beside others.
  const PodNeeds mixed{.resources = {}, .overhead = {}, .containers = {Limits(640, 100), Limits(0, 0)}};
  EXPECT_EQ(Mebibytes(mixed), 256U + 640 + 10);
  EXPECT_EQ(Vcpus(mixed), 3U);
  EXPECT_EQ(Vcpus({.resources = {}, .overhead = {}, .containers = {Limits(640, 100)}}), 1U);
  EXPECT_EQ(Vcpus({.resources = {}, .overhead = {}, .containers = {Limits(0, 5000), Limits(0, 0)}}), 5U);
}

TEST(WantedSizeTest, LimitsEndAtTheMaximaAndLeaveRoomForHugePages) {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max() >> 20;
  const PodNeeds huge{.resources = {}, .overhead = {}, .containers = {Limits(most, 1 << 30), Limits(most, 1 << 30)}};
  EXPECT_EQ(Mebibytes(huge), 4096U);
  EXPECT_EQ(Vcpus(huge), 8U);
  PodNeeds with_pages = huge;
  with_pages.containers.push_back(Pages("2MB", 1000));
  const WantedSize wanted = SizeWanted(Options(), with_pages);
  EXPECT_EQ(wanted.huge_page_bytes, 1152 * kMebibyte);
  EXPECT_EQ(wanted.memory_bytes, (4096 - 1152) * kMebibyte);
  EXPECT_FALSE(wanted.unmovable);
  with_pages.containers.push_back(Pages("2MB", 100'000));
  EXPECT_EQ(Mebibytes(with_pages), 256U) << "too many pages are for the VM to refuse";
  EXPECT_TRUE(SizeWanted(Options(), {.resources = {}, .overhead = {}, .containers = {Pages("1GB", 1024)}}).unmovable);
}

TEST(WantedSizeTest, WhatIsPluggedIsWhatTheVmWasNotStartedWith) {
  const auto plugged = [](std::uint64_t memory, std::uint64_t pages, std::uint64_t boot) {
    const WantedSize wanted{.memory_bytes = memory * kMebibyte, .huge_page_bytes = pages * kMebibyte};
    return PluggedFor(wanted, boot * kMebibyte, 4094 * kMebibyte) / kMebibyte;
  };
  EXPECT_EQ(plugged(256, 0, 256), 0U);
  EXPECT_EQ(plugged(256, 128, 512), 128U) << "what it was started with cannot be taken away";
  EXPECT_EQ(plugged(762, 0, 256), 508U) << "a multiple of 4 MiB";
  EXPECT_EQ(plugged(762, 128, 256), 636U);
  EXPECT_EQ(plugged(4094, 0, 256), 3836U) << "which ends before the maximum";
  EXPECT_EQ(plugged(256, 4096, 256), 4096U);
}

TEST(WantedSizeTest, TheHostsLimitOfCpuIsNoLessThanTheContainers) {
  PodNeeds needs{.resources = Limits(0, 500), .overhead = {}, .containers = {Limits(0, 400), Limits(0, 350)}};
  EXPECT_EQ(MilliCpus(AnnouncedOrMore(needs)), 750U);
  needs.resources = Limits(0, 900);
  EXPECT_EQ(MilliCpus(AnnouncedOrMore(needs)), 900U);
  needs.resources = {};
  EXPECT_EQ(MilliCpus(AnnouncedOrMore(needs)), 0U) << "what was not announced is not limited";
}

TEST(WantedSizeTest, MoreOfTwoIsWhatBothFitIn) {
  LinuxResources before = Limits(100, 500);
  before.hugepage_limits = {{"2MB", 4 * kMebibyte}, {"1GB", 1024 * kMebibyte}};
  LinuxResources after = Limits(50, 800);
  after.hugepage_limits = {{"2MB", 8 * kMebibyte}};
  const LinuxResources more = MoreOf(before, after);
  EXPECT_EQ(MemoryLimit(more), 100 * kMebibyte);
  EXPECT_EQ(MilliCpus(more), 800U);
  EXPECT_EQ(more.hugepage_limits.at("2MB"), 8 * kMebibyte);
  EXPECT_EQ(more.hugepage_limits.at("1GB"), 1024 * kMebibyte);
  EXPECT_EQ(MilliCpus(MoreOf(after, before)), 800U);
  EXPECT_EQ(MilliCpus(MoreOf(before, Limits(50, 0))), 0U);
  EXPECT_EQ(MilliCpus(MoreOf(Limits(50, 0), before)), 0U);
  EXPECT_EQ(MemoryLimit(MoreOf(Limits(0, 500), before)), 0U);
}

}  // namespace
}  // namespace husk::sandbox
