#include "agent/guest/resources.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace husk::agent {
namespace {

using Json = nlohmann::json;

const GuestTopology kTwo{.cpus = "0-1", .memory_nodes = "0"};

Json Fitted(const char* resources) {
  const auto fitted = FitResources(resources, kTwo);
  EXPECT_TRUE(fitted.ok()) << fitted.status();
  return fitted.ok() ? Json::parse(*fitted) : Json();
}

TEST(ResourcesTest, CpusThatTheGuestHasStay) {
  EXPECT_EQ(Fitted(R"({"cpu":{"cpus":"1","mems":"0","shares":5}})"),
            Json::parse(R"({"cpu":{"cpus":"1","mems":"0","shares":5}})"));
  EXPECT_EQ(Fitted(R"({"cpu":{"cpus":"0,1"}})"), Json::parse(R"({"cpu":{"cpus":"0,1"}})"));
}

TEST(ResourcesTest, CpusOfTheNodeAreLeftOut) {
  EXPECT_EQ(Fitted(R"({"cpu":{"cpus":"1-2","mems":"0-1","shares":5}})"), Json::parse(R"({"cpu":{"shares":5}})"));
  EXPECT_EQ(Fitted(R"({"cpu":{"cpus":"7"},"memory":{"limit":9}})"), Json::parse(R"({"cpu":{},"memory":{"limit":9}})"));
}

TEST(ResourcesTest, WhatIsNoListIsLeftToTheKernel) {
  for (const char* odd : {R"({"cpu":{"cpus":"1-"}})", R"({"cpu":{"cpus":"4294967296"}})", R"({"cpu":{"cpus":"3-1"}})",
                          R"({"cpu":{"cpus":"0-99999999"}})", R"({"cpu":{"cpus":7}})", R"({"cpu":[]})"}) {
    EXPECT_EQ(Fitted(odd), Json::parse(odd));
  }
}

TEST(ResourcesTest, RefusesWhatIsNoObject) {
  for (const char* bad : {"", "[]", "{", "1"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(FitResources(bad, kTwo).status())) << bad;
    EXPECT_TRUE(absl::IsInvalidArgument(FitConfig(bad, kTwo).status())) << bad;
    EXPECT_TRUE(absl::IsInvalidArgument(MergeResources("{}", bad).status())) << bad;
    EXPECT_TRUE(absl::IsInvalidArgument(MergeResources(bad, "{}").status())) << bad;
  }
}

TEST(ResourcesTest, AConfigurationIsFittedAndChanged) {
  const auto fitted = FitConfig(R"({"linux":{"resources":{"cpu":{"cpus":"9","shares":2}}},"root":{}})", kTwo);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  EXPECT_EQ(Json::parse(*fitted), Json::parse(R"({"linux":{"resources":{"cpu":{"shares":2}}},"root":{}})"));
  const auto merged = MergeResources(*fitted, R"({"cpu":{"quota":7},"memory":{"limit":4096}})");
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_EQ(Json::parse(*merged), Json::parse(R"({"linux":{"resources":{"cpu":{"shares":2,"quota":7},
                                                 "memory":{"limit":4096}}},"root":{}})"));
}

TEST(ResourcesTest, HugePagesThatTheGuestDoesNotHaveCanOnlyBeZero) {
  const GuestTopology topology{.cpus = "0", .memory_nodes = "0", .huge_page_sizes = {"2MB", "1GB"}};
  const auto fitted = FitConfig(R"({"linux":{"resources":{"hugepageLimits":[{"pageSize":"2MB","limit":4194304},
      {"pageSize":"64KB","limit":0},{"pageSize":"1GB","limit":0}]}}})",
                                topology);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  EXPECT_EQ(Json::parse(*fitted).at("linux").at("resources").at("hugepageLimits"),
            Json::parse(R"([{"pageSize":"2MB","limit":4194304},{"pageSize":"1GB","limit":0}])"));
  const auto limits = HugePageLimits(*fitted);
  ASSERT_TRUE(limits.ok()) << limits.status();
  EXPECT_EQ(*limits, (HugePageBytes{{"2MB", 4194304}, {"1GB", 0}}));
  const Status refused = FitResources(R"({"hugepageLimits":[{"pageSize":"64KB","limit":65536}]})", topology).status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  EXPECT_EQ(refused.message(), "hugepage_limits[64KB]: the VM's kernel has huge pages of 2MB and 1GB");
  EXPECT_TRUE(
      absl::IsInvalidArgument(FitResources(R"({"hugepageLimits":[{"pageSize":"2MB","limit":2}]})", kTwo).status()));
}

TEST(ResourcesTest, HugePageLimitsThatAreNoneAreLeftToCrun) {
  for (const char* odd :
       {R"({"hugepageLimits":7})", R"({"hugepageLimits":[7]})", R"({"hugepageLimits":[{}]})",
        R"({"hugepageLimits":[{"pageSize":2,"limit":0}]})", R"({"hugepageLimits":[{"pageSize":"2MB","limit":-1}]})"}) {
    EXPECT_EQ(Fitted(odd), Json::parse(odd));
    const auto limits = HugePageLimits(std::string(R"({"linux":{"resources":)") + odd + "}}");
    ASSERT_TRUE(limits.ok()) << odd;
    EXPECT_TRUE(limits->empty()) << odd;
  }
  EXPECT_TRUE(HugePageLimits("{}")->empty());
  EXPECT_FALSE(HugePageLimits("[]").ok());
}

TEST(ResourcesTest, ThisMachineHasACpuAndANode) {
  const GuestTopology topology = ReadTopology();
  EXPECT_FALSE(topology.cpus.empty());
  EXPECT_FALSE(topology.memory_nodes.empty());
}

}  // namespace
}  // namespace husk::agent
