// Limits of running pods and containers, ends for lack of memory, and what verbose status tells.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr std::int64_t kMebibyte = std::int64_t{1} << 20;

class ResourcesTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
  }
  static LinuxResources Memory(std::int64_t bytes) {
    LinuxResources resources;
    resources.memory_limit_bytes = bytes;
    return resources;
  }
  std::string pod_;
};

TEST_F(ResourcesTest, AContainersLimitsChangeWhileItRunsAndAreRemembered) {
  const std::string id = CreateContainer(pod_);
  ASSERT_TRUE(runtime_->UpdateContainerResources(context_, id, Memory(64 * kMebibyte)).ok()) << "while CREATED";
  ASSERT_TRUE(runtime_->StartContainer(context_, id).ok());
  LinuxResources change = Memory(128 * kMebibyte);
  change.cpu_quota = 50'000;
  for (int repetition = 0; repetition < 2; ++repetition) {
    ASSERT_TRUE(runtime_->UpdateContainerResources(context_, id, change).ok());
  }
  const Json sent = Json::parse(Guest(pod_).updated_resources(id));
  EXPECT_EQ(sent.at("memory").at("limit"), 128 * kMebibyte);
  EXPECT_EQ(sent.at("cpu").at("quota"), 50'000);
  EXPECT_EQ(sent.at("cpu").at("period"), 100'000);
  EXPECT_FALSE(sent.contains("devices"));
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  EXPECT_EQ(StatusOf(id).config.resources.memory_limit_bytes, 128 * kMebibyte);

  Restart();
  EXPECT_EQ(StatusOf(id).config.resources.memory_limit_bytes, 128 * kMebibyte);
  EXPECT_EQ(StatusOf(id).config.resources.cpu_quota, 50'000);
}

TEST_F(ResourcesTest, WhatTheGuestRefusesIsNotInForce) {
  const std::string id = RunContainer(pod_);
  Guest(pod_).FailNext("UpdateResources", absl::InvalidArgumentError("the kernel refuses it"));
  const Status refused = runtime_->UpdateContainerResources(context_, id, Memory(64 * kMebibyte));
  EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  EXPECT_EQ(StatusOf(id).config.resources.memory_limit_bytes, 0);
  EXPECT_TRUE(absl::IsNotFound(runtime_->UpdateContainerResources(context_, "none", {})));
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 0));
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_TRUE(absl::IsFailedPrecondition(runtime_->UpdateContainerResources(context_, id, Memory(kMebibyte))));
}

TEST_F(ResourcesTest, ThePodsCgroupHoldsTheVmAndQemu) {
  const HostLimits first = cgroups_.limits(pod_);
  EXPECT_GT(first.memory_bytes, options_.default_memory_bytes);
  EXPECT_EQ(first.cpu_quota, 0);
  LinuxResources resources = Memory(100 * kMebibyte);
  resources.cpu_quota = 200'000;
  resources.cpu_period = 100'000;
  resources.cpu_shares = 512;
  LinuxResources overhead = Memory(2000 * kMebibyte);
  overhead.cpu_quota = 25'000;
  overhead.cpu_period = 100'000;
  ASSERT_TRUE(runtime_->UpdatePodResources(context_, pod_, resources, overhead).ok());
  ASSERT_TRUE(runtime_->UpdatePodResources(context_, pod_, {}, {}).ok()) << "names nothing, changes nothing";
  const HostLimits changed = cgroups_.limits(pod_);
  EXPECT_EQ(changed.cpu_quota, 225'000);
  EXPECT_EQ(changed.cpu_shares, 512U);
  EXPECT_GE(changed.memory_bytes, options_.default_memory_bytes + 2000 * kMebibyte);
  const auto status = runtime_->GetPod(pod_, true);
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->config.resources.cpu_quota, 200'000);
  Restart();
  EXPECT_EQ(runtime_->GetPod(pod_, false)->config.overhead.cpu_quota, 25'000);
  EXPECT_TRUE(absl::IsNotFound(runtime_->UpdatePodResources(context_, "none", {}, {})));
  ASSERT_TRUE(runtime_->StopPod(context_, pod_).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(runtime_->UpdatePodResources(context_, pod_, resources, {})));
}

TEST_F(ResourcesTest, ABootHasSharesThatThePodHasNot) {
  PodConfig config = Pod("least");
  config.resources.cpu_shares = 2;
  config.resources.cpu_quota = 50'000;
  config.resources.cpu_period = 100'000;
  agents_.SetGuestSetup([](agent::FakeGuest& guest) { guest.Block("Hello"); });
  std::thread run([&] { EXPECT_TRUE(runtime_->RunPod(context_, config).ok()); });
  std::string id;
  EXPECT_TRUE(Eventually([&] {
    for (const PodStatus& status : runtime_->ListPods({})) {
      if (status.config.metadata.name == "least") id = status.id;
    }
    return !id.empty();
  }));
  EXPECT_TRUE(Guest(id).WaitForCalls("Hello", 1));
  const HostLimits booting = cgroups_.limits(id);
  Guest(id).Release("Hello");
  run.join();
  const HostLimits ready = cgroups_.limits(id);
  EXPECT_EQ(booting.cpu_shares, 1024U);
  EXPECT_EQ(ready.cpu_shares, 2U);
  EXPECT_EQ(booting.cpu_quota, 50'000) << "a boot keeps to the pod's quota";
  EXPECT_EQ(booting.memory_bytes, ready.memory_bytes) << "and to its memory";
  EXPECT_GT(ready.memory_bytes, 0U);
}

TEST_F(ResourcesTest, AnOomOfTheGuestIsToldFromOneOfTheContainer) {
  const std::string own = RunContainer(pod_, "own");
  ASSERT_TRUE(Guest(pod_).Exit(own, "", 137, /*oom_killed=*/true));
  ASSERT_TRUE(AwaitExit(own));
  EXPECT_EQ(StatusOf(own).reason, "OOMKilled");
  EXPECT_EQ(StatusOf(own).message, "");

  Guest(pod_).SetPollFilter([](agent::v1::PollResponse& response) {
    for (auto& exit : *response.mutable_exits()) exit.set_guest_out_of_memory(true);
  });
  const std::string guest = RunContainer(pod_, "guest");
  ASSERT_TRUE(Guest(pod_).Exit(guest, "", 137, /*oom_killed=*/true));
  ASSERT_TRUE(AwaitExit(guest));
  EXPECT_EQ(StatusOf(guest).reason, "OOMKilled");
  EXPECT_THAT(StatusOf(guest).message, HasSubstr("VM of 256 MiB was out of memory"));
}

TEST_F(ResourcesTest, AVmThatTheHostsOomKillerTookIsToldSo) {
  const std::string id = RunContainer(pod_);
  cgroups_.SetOomKills(pod_, 1);
  machine_.KillVm(pod_, "QEMU was killed by signal 9");
  ASSERT_TRUE(AwaitExit(id));
  const ContainerStatus status = StatusOf(id);
  EXPECT_EQ(status.reason, "OOMKilled");
  EXPECT_EQ(status.exit_code, 137);
  EXPECT_THAT(status.message, HasSubstr("the host killed it for lack of memory"));
  EXPECT_THAT(status.message, HasSubstr("signal 9"));
}

TEST_F(ResourcesTest, VerboseStatusTellsTheVmTheDisksAndTheSpecification) {
  ContainerConfig config = Config("main");
  config.resources = Memory(64 * kMebibyte);
  const auto id = runtime_->CreateContainer(context_, pod_, config);
  ASSERT_TRUE(id.ok()) << id.status();
  ASSERT_TRUE(runtime_->StartContainer(context_, *id).ok());
  const auto pod = runtime_->GetPod(pod_, true);
  ASSERT_TRUE(pod.ok());
  EXPECT_GT(Json::parse(pod->information.at("vm")).at("memoryBytes"), 0);
  const Json disks = Json::parse(pod->information.at("disks"));
  ASSERT_EQ(disks.size(), 2U);
  EXPECT_EQ(disks[0].at("use"), "scratch");
  EXPECT_EQ(disks[1].at("image"), "sha256:app");
  EXPECT_EQ(Json::parse(pod->information.at("config")).at("hostname"), "pod");
  EXPECT_TRUE(runtime_->GetPod(pod_, false)->information.empty());

  const auto container = runtime_->GetContainer(*id, true);
  ASSERT_TRUE(container.ok());
  const Json info = Json::parse(container->information.at("info"));
  EXPECT_EQ(info.at("sandboxID"), pod_);
  EXPECT_GT(info.at("pid"), 0);
  EXPECT_EQ(info.at("image").at("id"), "sha256:app");
  EXPECT_EQ(info.at("disk").at("lun"), disks[1].at("lun"));
  EXPECT_EQ(info.at("runtimeSpec").at("linux").at("resources").at("memory").at("limit"), 64 * kMebibyte);
  EXPECT_TRUE(StatusOf(*id).information.empty());
}

}  // namespace
}  // namespace husk::sandbox
