#include "agent/guest/cgroup_stats.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace husk::agent {
namespace {

class CgroupStatsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-cgroup-stats-XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void Write(const std::string& name, const std::string& text) const { std::ofstream(directory_ + "/" + name) << text; }

  std::string directory_;
};

TEST_F(CgroupStatsTest, ReadsWhatTheKernelCounts) {
  Write("cpu.stat",
        "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 5\n"
        "nr_bursts 0\n");
  Write("cpu.pressure",
        "some avg10=1.50 avg60=0.25 avg300=12.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.07 total=3\n");
  Write("memory.current", "8192\n");
  Write("memory.max", "max\n");
  Write("memory.peak", "9000\n");
  Write("memory.swap.current", "0\n");
  Write("memory.swap.max", "4096\n");
  Write("memory.stat",
        "anon 4096\nfile 2048\nkernel 512\nfile_mapped 256\ninactive_file 1024\npgfault 11\npgmajfault 3\n");
  Write("memory.events", "low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\n");
  Write("io.stat", "8:0 rbytes=100 wbytes=200 rios=3 wios=4 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n");
  Write("pids.current", "6\n");
  Write("cgroup.procs", "100\n101\n");
  std::filesystem::create_directory(directory_ + "/exec-1");
  Write("exec-1/cgroup.procs", "102\n");

  const v1::CgroupStats stats = ReadCgroupStats(directory_);
  EXPECT_EQ(stats.cpu().usage_nanoseconds(), 3'000'000U);
  EXPECT_EQ(stats.cpu().user_nanoseconds(), 2'000'000U);
  EXPECT_EQ(stats.cpu().system_nanoseconds(), 1'000'000U);
  EXPECT_EQ(stats.cpu().periods(), 7U);
  EXPECT_EQ(stats.cpu().throttled_periods(), 2U);
  EXPECT_EQ(stats.cpu().throttled_nanoseconds(), 5000U);
  EXPECT_DOUBLE_EQ(stats.cpu().pressure().some().average10(), 1.5);
  EXPECT_DOUBLE_EQ(stats.cpu().pressure().some().average300(), 12);
  EXPECT_EQ(stats.cpu().pressure().some().total_nanoseconds(), 42'000U);
  EXPECT_DOUBLE_EQ(stats.cpu().pressure().full().average300(), 0.07);
  EXPECT_EQ(stats.memory().usage_bytes(), 8192U);
  EXPECT_FALSE(stats.memory().has_limit_bytes());
  EXPECT_EQ(stats.memory().swap_limit_bytes(), 4096U);
  EXPECT_EQ(stats.memory().inactive_file_bytes(), 1024U);
  EXPECT_EQ(stats.memory().anonymous_bytes(), 4096U);
  EXPECT_EQ(stats.memory().page_faults(), 11U);
  EXPECT_EQ(stats.memory().major_page_faults(), 3U);
  EXPECT_EQ(stats.memory().limit_failures(), 5U);
  EXPECT_EQ(stats.memory().out_of_memory_kills(), 1U);
  EXPECT_FALSE(stats.memory().has_pressure());
  EXPECT_EQ(stats.io().read_bytes(), 101U);
  EXPECT_EQ(stats.io().written_bytes(), 202U);
  EXPECT_EQ(stats.io().reads(), 4U);
  EXPECT_EQ(stats.io().writes(), 5U);
  EXPECT_EQ(stats.processes(), 3U);
  EXPECT_EQ(stats.threads(), 6U);
}

TEST_F(CgroupStatsTest, WhatIsMissingOrUnreadableIsAbsent) {
  Write("cpu.stat", "usage_usec\nuser_usec x\n\n");
  Write("memory.current", "-1\n");
  const v1::CgroupStats stats = ReadCgroupStats(directory_);
  EXPECT_FALSE(stats.cpu().has_usage_nanoseconds());
  EXPECT_FALSE(stats.cpu().has_user_nanoseconds());
  EXPECT_FALSE(stats.cpu().has_pressure());
  EXPECT_FALSE(stats.memory().has_usage_bytes());
  EXPECT_FALSE(stats.io().has_read_bytes());
  EXPECT_FALSE(stats.has_threads());
}

TEST(Interfaces, AreReadWithoutLoopback) {
  const auto interfaces = ParseInterfaces(
      "Inter-|   Receive                                                |  Transmit\n"
      " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls "
      "carrier compressed\n"
      "    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0 "
      "  "
      "       0\n"
      "  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n"
      "  bad0: 1000 10 1 2\n");
  ASSERT_EQ(interfaces.size(), 1U);
  EXPECT_EQ(interfaces[0].name(), "eth0");
  EXPECT_EQ(interfaces[0].received_bytes(), 1000U);
  EXPECT_EQ(interfaces[0].received_packets(), 10U);
  EXPECT_EQ(interfaces[0].receive_errors(), 1U);
  EXPECT_EQ(interfaces[0].receive_drops(), 2U);
  EXPECT_EQ(interfaces[0].sent_bytes(), 2000U);
  EXPECT_EQ(interfaces[0].sent_packets(), 20U);
  EXPECT_EQ(interfaces[0].send_errors(), 3U);
  EXPECT_EQ(interfaces[0].send_drops(), 4U);
}

}  // namespace
}  // namespace husk::agent
