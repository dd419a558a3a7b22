#include "sandbox/network/bandwidth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace husk::sandbox {
namespace {

using testing::HasSubstr;

TEST(BandwidthTest, QuantitiesOfKubernetesAreBitsASecond) {
  const auto ingress = [](const std::string& text) {
    const auto bandwidth = BandwidthOf({{"kubernetes.io/ingress-bandwidth", text}});
    return bandwidth.ok() ? bandwidth->ingress_bits_per_second : 0;
  };
  EXPECT_EQ(ingress("10M"), 10'000'000U);
  EXPECT_EQ(ingress("1.5M"), 1'500'000U);
  EXPECT_EQ(ingress("1Mi"), 1'048'576U);
  EXPECT_EQ(ingress("2e6"), 2'000'000U);
  EXPECT_EQ(ingress("1000"), 1'000U);
  EXPECT_EQ(ingress("1P"), 1'000'000'000'000'000U);
}

TEST(BandwidthTest, EachDirectionHasItsOwn) {
  const auto both = BandwidthOf(
      {{"kubernetes.io/ingress-bandwidth", "1M"}, {"kubernetes.io/egress-bandwidth", "2M"}, {"other", "x"}});
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->ingress_bits_per_second, 1'000'000U);
  EXPECT_EQ(both->egress_bits_per_second, 2'000'000U);
  EXPECT_EQ(BandwidthOf({})->egress_bits_per_second, 0U);
}

TEST(BandwidthTest, WhatIsNoneIsRefusedByName) {
  for (const char* text : {"", "fast", "10X", "-1M", "999", "2P", "1e", "nan", "inf", "0x10M", "1..5M", "10M\x7f"}) {
    const auto refused = BandwidthOf({{"kubernetes.io/egress-bandwidth", text}});
    EXPECT_TRUE(absl::IsInvalidArgument(refused.status())) << text;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("annotations[kubernetes.io/egress-bandwidth]"));
    EXPECT_EQ(refused.status().message().find('\x7f'), std::string::npos);
  }
}

TEST(BandwidthTest, ABurstIsASecondsWorthWithinLimits) {
  EXPECT_EQ(BurstOf(10'000'000), 10'000'000U);
  EXPECT_EQ(BurstOf(1000), 1U << 20U);
  EXPECT_EQ(BurstOf(1'000'000'000'000), 2'147'483'647U);
}

}  // namespace
}  // namespace husk::sandbox
