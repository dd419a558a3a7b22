// Huge pages of containers: memory that is plugged into the VM, and what the guest is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

class HugePagesTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
  }
  static LinuxResources Pages(std::uint64_t mebibytes) {
    LinuxResources resources;
    resources.hugepage_limits = {{"2MB", mebibytes * kMebibyte}, {"1GB", 0}};
    return resources;
  }
  StatusOr<std::string> Make(const std::string& name, std::uint64_t mebibytes) {
    ContainerConfig config = Config(name);
    config.resources = Pages(mebibytes);
    return runtime_->CreateContainer(context_, pod_, config);
  }
  std::uint64_t Plugged() { return machine_.vm(pod_)->plugged_bytes / kMebibyte; }

  std::string pod_;
};

TEST_F(HugePagesTest, MemoryComesWithTheContainerAndGoesWithIt) {
  const std::uint64_t limit = cgroups_.limits(pod_).memory_bytes;
  ASSERT_TRUE(Make("none", 0).ok());
  EXPECT_EQ(Plugged(), 0U);
  const auto first = Make("first", 100);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(Plugged(), 128U);
  EXPECT_GE(cgroups_.limits(pod_).memory_bytes, limit + 128 * kMebibyte);
  const auto second = Make("second", 200);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(Plugged(), 384U);
  const auto told = runtime_->GetPod(pod_, true);
  ASSERT_TRUE(told.ok());
  EXPECT_EQ(Json::parse(told->information.at("vm")).at("memoryBytes"), options_.default_memory_bytes + 384 * kMebibyte);
  // A new process counts those that are there.
  Restart();
  ASSERT_TRUE(runtime_->RemoveContainer(context_, *second).ok());
  EXPECT_EQ(Plugged(), 128U);
  ASSERT_TRUE(runtime_->RemoveContainer(context_, *first).ok());
  EXPECT_EQ(Plugged(), 0U);
  EXPECT_EQ(cgroups_.limits(pod_).memory_bytes, limit);
}

TEST_F(HugePagesTest, AContainerThatHasEndedNeedsNone) {
  const auto ends = Make("ends", 400);
  ASSERT_TRUE(ends.ok()) << ends.status();
  ASSERT_TRUE(runtime_->StartContainer(context_, *ends).ok());
  ASSERT_TRUE(Guest(pod_).Exit(*ends, "", 0));
  ASSERT_TRUE(AwaitExit(*ends));
  // Both do not fit.
  const auto next = Make("next", 450);
  EXPECT_TRUE(next.ok()) << next.status();
}

TEST_F(HugePagesTest, TooManyAreRefusedByTheFieldAndLeaveNothing) {
  const auto first = Make("first", 300);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = Make("second", 600);
  EXPECT_TRUE(absl::IsResourceExhausted(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("hugepage_limits[2MB]"));
  EXPECT_EQ(Plugged(), 384U);
  Guest(pod_).FailNext("CreateContainer", absl::ResourceExhaustedError("hugepage_limits[2MB]: of the 160 pages"));
  EXPECT_TRUE(absl::IsResourceExhausted(Make("third", 100).status()));
  EXPECT_EQ(Plugged(), 384U) << "what was plugged for it is taken out";
  EXPECT_EQ(runtime_->ListContainers({}).size(), 1U);
}

TEST_F(HugePagesTest, ALimitGrowsAndShrinksWithItsMemory) {
  const auto id = Make("main", 100);
  ASSERT_TRUE(id.ok()) << id.status();
  ASSERT_TRUE(runtime_->StartContainer(context_, *id).ok());
  ASSERT_TRUE(runtime_->UpdateContainerResources(context_, *id, Pages(200)).ok());
  EXPECT_EQ(Plugged(), 256U);
  EXPECT_EQ(Json::parse(Guest(pod_).updated_resources(*id)).at("hugepageLimits"),
            Json::parse(R"([{"pageSize":"1GB","limit":0},{"pageSize":"2MB","limit":209715200}])"));
  Guest(pod_).FailNext("UpdateResources", absl::ResourceExhaustedError("hugepage_limits[2MB]: of the 200 pages"));
  EXPECT_TRUE(absl::IsResourceExhausted(runtime_->UpdateContainerResources(context_, *id, Pages(400))));
  EXPECT_EQ(Plugged(), 256U);
  EXPECT_EQ(StatusOf(*id).config.resources.hugepage_limits.at("2MB"), 200 * kMebibyte);
  EXPECT_TRUE(absl::IsResourceExhausted(runtime_->UpdateContainerResources(context_, *id, Pages(4000))));
  EXPECT_EQ(Plugged(), 256U);
  ASSERT_TRUE(runtime_->UpdateContainerResources(context_, *id, Pages(50)).ok());
  EXPECT_EQ(Plugged(), 128U);
  LinuxResources other;
  other.cpu_shares = 100;
  ASSERT_TRUE(runtime_->UpdateContainerResources(context_, *id, other).ok());
  EXPECT_EQ(StatusOf(*id).config.resources.hugepage_limits.at("2MB"), 50 * kMebibyte) << "what is not named stays";
}

TEST_F(HugePagesTest, ThePodGoesWithItsMemory) {
  ASSERT_TRUE(Make("main", 100).ok());
  RemoveAllPods();
  ExpectNothingLeft();
}

}  // namespace
}  // namespace husk::sandbox
