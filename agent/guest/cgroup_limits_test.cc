#include "agent/guest/cgroup_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "agent/guest/files.h"

namespace husk::agent {
namespace {

using ::testing::HasSubstr;

// Files stand in for a cgroup's: what is written lies over what was there, and the test gives room for it.
class CgroupLimitsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-limits-XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Make(const std::string& file, const std::string& value = "") const {
    std::ofstream(directory_ + "/" + file) << value;
  }
  [[nodiscard]] std::string Read(const std::string& file) const {
    return ReadFile(directory_ + "/" + file).value_or("(missing)");
  }
  [[nodiscard]] Status Change(const std::string& json) const { return ChangeLimits(directory_, json); }

  std::string directory_;
};

TEST_F(CgroupLimitsTest, WritesWhatIsNamed) {
  for (const char* file : {"cpu.weight", "cpu.max", "cpuset.cpus", "cpuset.mems", "memory.max", "memory.swap.max",
                           "memory.high", "hugetlb.2MB.max", "hugetlb.1GB.max"}) {
    Make(file);
  }
  const Status changed = Change(R"({
    "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1", "mems": ""},
    "memory": {"limit": 1000, "swap": 1500}, "unified": {"memory.high": "900"},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}, {"pageSize": "1GB", "limit": 0}]})");
  ASSERT_TRUE(changed.ok()) << changed;
  EXPECT_EQ(Read("cpu.weight"), "39");
  EXPECT_EQ(Read("cpu.max"), "50000 100000");
  EXPECT_EQ(Read("cpuset.cpus"), "0-1");
  EXPECT_EQ(Read("cpuset.mems"), "\n");
  EXPECT_EQ(Read("memory.max"), "1000");
  EXPECT_EQ(Read("memory.swap.max"), "500");
  EXPECT_EQ(Read("memory.high"), "900");
  EXPECT_EQ(Read("hugetlb.2MB.max"), "4194304");
  EXPECT_EQ(Read("hugetlb.1GB.max"), "0");
}

TEST_F(CgroupLimitsTest, NoLimitIsMax) {
  for (const char* file : {"cpu.max", "memory.max", "memory.swap.max"}) Make(file);
  ASSERT_TRUE(Change(R"({"cpu": {"quota": -1, "period": 100000}, "memory": {"limit": -1, "swap": -1}})").ok());
  EXPECT_EQ(Read("cpu.max"), "max 100000");
  EXPECT_EQ(Read("memory.max"), "max");
  EXPECT_EQ(Read("memory.swap.max"), "max");
  Make("cpu.max");
  ASSERT_TRUE(Change(R"({"cpu": {"shares": 0, "quota": 700}, "memory": {"limit": 0, "swap": 0}})").ok())
      << "0: not named";
  EXPECT_EQ(Read("cpu.max"), "700");
  EXPECT_EQ(Read("memory.max"), "max");
}

TEST_F(CgroupLimitsTest, APeriodAloneKeepsTheQuota) {
  Make("cpu.max", "50000 100000\n");
  ASSERT_TRUE(Change(R"({"cpu": {"period": 200000}})").ok());
  EXPECT_EQ(Read("cpu.max"), "50000 200000\n");
  EXPECT_EQ(Change(R"({"cpu": {"period": "a"}})").message(), "cpu.period: \"a\"");
}

TEST_F(CgroupLimitsTest, TheEndsOfSharesAreTheEndsOfWeights) {
  for (const auto& [shares, weight] : {std::pair(1, "1"), {2, "1"}, {262144, "10000"}, {1 << 30, "10000"}}) {
    Make("cpu.weight");
    ASSERT_TRUE(Change(R"({"cpu": {"shares": )" + std::to_string(shares) + "}}").ok());
    EXPECT_EQ(Read("cpu.weight"), weight) << shares;
  }
}

TEST_F(CgroupLimitsTest, WhatIsRefusedChangesNothing) {
  Make("memory.max", "100\n");
  std::filesystem::create_directory(directory_ + "/memory.swap.max");
  const Status refused = Change(R"({"cpu": {}, "memory": {"limit": 200, "swap": 300}})");
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("memory.swap.max: 100: "));
  EXPECT_EQ(Read("memory.max"), "100\n");
}

TEST_F(CgroupLimitsTest, WhatIsUnknownIsRefusedByItsName) {
  Make("memory.max", "100\n");
  for (const auto& [json, words] : {
           std::pair("[]", "resources_json"),
           {R"({"memory": {"limit": 5}, "pids": {}})", "pids: cannot be changed"},
           {R"({"memory": {"limit": 5, "reservation": 4}})", "memory.reservation: cannot be changed"},
           {R"({"memory": {"limit": 1.5}})", "memory.limit: 1.5"},
           {R"({"memory": 5})", "memory: 5"},
           {R"({"memory": {"limit": 5, "swap": 4}})", "memory.swap: 4 is no limit of memory and swap together"},
           {R"({"memory": {"swap": 4}})", "memory.swap: 4 is no limit of memory and swap together"},
           {R"({"cpu": {"cpus": 1}})", "cpu.cpus: 1"},
           {R"({"unified": {"../memory.max": "1"}})", "unified[../memory.max]: is no file of a cgroup"},
           {R"({"unified": {"memory": "1"}})", "unified[memory]: is no file of a cgroup"},
           {R"({"unified": {"memory.max": 1}})", "unified[memory.max]: 1"},
           {R"({"unified": {"memory.none": "1"}})", "memory.none: the guest's kernel has no such file"},
           {R"({"hugepageLimits": [{"pageSize": "../2MB", "limit": 0}]})", "hugepageLimits: {"},
           {R"({"hugepageLimits": {}})", "hugepageLimits: {}"},
       }) {
    const Status refused = Change(json);
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(words)) << json;
  }
  EXPECT_EQ(Read("memory.max"), "100\n");
}

}  // namespace
}  // namespace husk::agent
