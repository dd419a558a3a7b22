// Against files that stand in for the kernel's: it grants what is written, or nothing at all.
#include "agent/guest/huge_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "agent/guest/files.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

class HugePagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-huge-XXXXXX";
    base_ = mkdtemp(pattern.data());
    for (const char* pool : {"hugepages-2048kB", "hugepages-64kB"}) {
      std::filesystem::create_directories(base_ + "/pools/" + pool);
      std::ofstream(base_ + "/pools/" + pool + "/nr_hugepages") << "0\n";
    }
    // Takes every count and has none.
    std::filesystem::create_directories(base_ + "/pools/hugepages-1048576kB");
    std::filesystem::create_symlink("/dev/null", base_ + "/pools/hugepages-1048576kB/nr_hugepages");
    std::filesystem::create_directories(base_ + "/pools/demote");
    std::ofstream(base_ + "/compact") << "0";
  }
  void TearDown() override { std::filesystem::remove_all(base_); }

  HugePages Make() { return HugePages({.pools = base_ + "/pools", .compact = base_ + "/compact"}); }
  std::string Count(const std::string& kibibytes) {
    const auto text = ReadFile(base_ + "/pools/hugepages-" + kibibytes + "kB/nr_hugepages");
    return text.ok() ? std::string(Trim(*text)) : text.status().ToString();
  }

  std::string base_;
};

TEST_F(HugePagesTest, SizesAreNamedAsTheKernelNamesThem) {
  EXPECT_THAT(Make().Sizes(), ElementsAre("64KB", "2MB", "1GB"));
  EXPECT_TRUE(HugePages({.pools = base_ + "/none", .compact = ""}).Sizes().empty());
}

TEST_F(HugePagesTest, ContainersAddUpAndGiveBack) {
  HugePages pages = Make();
  ASSERT_TRUE(pages.Reserve("a", {{"2MB", 6 * kMebibyte}, {"1GB", 0}}).ok());
  EXPECT_EQ(Count("2048"), "3");
  ASSERT_TRUE(pages.Reserve("b", {{"2MB", 4 * kMebibyte}, {"64KB", 128 * 1024}}).ok());
  EXPECT_EQ(Count("2048"), "5");
  EXPECT_EQ(Count("64"), "2");
  ASSERT_TRUE(pages.Reserve("a", {{"2MB", 2 * kMebibyte}}).ok()) << "a smaller limit";
  EXPECT_EQ(Count("2048"), "3");
  pages.Release("b");
  pages.Release("b");
  EXPECT_EQ(Count("2048"), "1");
  EXPECT_EQ(Count("64"), "0");
  pages.Release("a");
  pages.Release("never seen");
  EXPECT_EQ(Count("2048"), "0");
}

TEST_F(HugePagesTest, WhatTheKernelDoesNotFindIsRefusedAndUndone) {
  HugePages pages = Make();
  ASSERT_TRUE(pages.Reserve("a", {{"2MB", 2 * kMebibyte}}).ok());
  const Status refused = pages.Reserve("b", {{"2MB", 4 * kMebibyte}, {"1GB", 2048 * kMebibyte}});
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("hugepage_limits[1GB]: of the 2 pages"));
  EXPECT_EQ(Count("2048"), "1") << "those of the other size are given back";
  EXPECT_EQ(ReadFile(base_ + "/compact").value_or(""), "1") << "it tried to make room";
  pages.Release("b");
  EXPECT_EQ(Count("2048"), "1");
}

TEST_F(HugePagesTest, SizesThatTheKernelDoesNotHaveCanOnlyBeZero) {
  HugePages pages = Make();
  EXPECT_TRUE(pages.Reserve("a", {{"512MB", 0}}).ok());
  const Status refused = pages.Reserve("a", {{"512MB", 512 * kMebibyte}});
  EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("hugepage_limits[512MB]"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("64KB and 2MB and 1GB"));
}

}  // namespace
}  // namespace husk::agent
