#include "sandbox/store/store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <string>

namespace husk::sandbox {
namespace {

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "husk-store-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    Open();
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(directory_);
  }
  void Open() {
    store_.reset();
    auto store = Store::Open(directory_ + "/sandbox.db");
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  static PodRecord Pod(const std::string& id) {
    PodRecord pod{.id = id, .created_at = 5};
    pod.config.metadata.name = "name-" + id;
    return pod;
  }
  static ContainerRecord Container(const std::string& id, const std::string& pod_id) {
    ContainerRecord container;
    container.status.id = id;
    container.status.pod_id = pod_id;
    container.status.image_id = "sha256:1";
    container.stop_signal = "SIGINT";
    container.checkpoint = {.device = 1, .inode = std::numeric_limits<std::uint64_t>::max(), .size = 3};
    return container;
  }
  PodRecord OnlyPod() {
    const auto pods = store_->Pods();
    EXPECT_TRUE(pods.ok()) << pods.status();
    EXPECT_EQ(pods->size(), 1U);
    return pods->at(0);
  }
  ContainerRecord OnlyContainer() {
    const auto containers = store_->Containers();
    EXPECT_TRUE(containers.ok()) << containers.status();
    EXPECT_EQ(containers->size(), 1U);
    return containers->at(0);
  }

  std::string directory_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, APodsLifeSurvivesReopening) {
  ASSERT_EQ(*store_->AddPod(Pod("p"), 1000, 10), 1000U);
  Open();
  EXPECT_EQ(OnlyPod().phase, PodPhase::kCreating);
  EXPECT_EQ(OnlyPod().config.metadata.name, "name-p");
  EXPECT_EQ(OnlyPod().user, 1000U);
  ASSERT_TRUE(store_->SetPodNetwork("p", {.dns_servers = {"1.1.1.1"}}).ok());
  ASSERT_TRUE(store_->SetPodReady("p", "guest-boot").ok());
  Open();
  EXPECT_EQ(OnlyPod().phase, PodPhase::kReady);
  EXPECT_EQ(OnlyPod().guest_boot_id, "guest-boot");
  EXPECT_FALSE(OnlyPod().resizing);
  ASSERT_TRUE(store_->SetPodResizing(OnlyPod().id, true).ok());
  EXPECT_TRUE(OnlyPod().resizing);
  ASSERT_TRUE(store_->SetPodResizing(OnlyPod().id, false).ok());
  EXPECT_FALSE(OnlyPod().resizing);
  EXPECT_EQ(OnlyPod().network.dns_servers.at(0), "1.1.1.1");
  ASSERT_TRUE(store_->RemovePod("p").ok());
  ASSERT_TRUE(store_->RemovePod("p").ok());
  EXPECT_TRUE(store_->Pods()->empty());
}

TEST_F(StoreTest, PhasesGoForwardOnly) {
  ASSERT_TRUE(store_->AddPod(Pod("p"), 1000, 10).ok());
  ASSERT_TRUE(store_->SetPodPhase("p", PodPhase::kRemoving).ok());
  ASSERT_TRUE(store_->SetPodPhase("p", PodPhase::kStopped).ok());
  EXPECT_EQ(OnlyPod().phase, PodPhase::kRemoving);
}

TEST_F(StoreTest, GivesTheLowestFreeUserUntilThereIsNone) {
  EXPECT_EQ(*store_->AddPod(Pod("a"), 1000, 3), 1000U);
  EXPECT_EQ(*store_->AddPod(Pod("b"), 1000, 3), 1001U);
  EXPECT_EQ(*store_->AddPod(Pod("c"), 1000, 3), 1002U);
  EXPECT_EQ(store_->AddPod(Pod("d"), 1000, 3).status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(store_->RemovePod("b").ok());
  Open();
  EXPECT_EQ(*store_->AddPod(Pod("d"), 1000, 3), 1001U);
}

TEST_F(StoreTest, AContainersLifeSurvivesReopening) {
  ASSERT_TRUE(store_->AddPod(Pod("p"), 1000, 3).ok());
  ASSERT_TRUE(store_->AddContainer(Container("c", "p")).ok());
  EXPECT_FALSE(OnlyContainer().lun.has_value());
  ASSERT_TRUE(store_
                  ->SetContainerCreated("c", 4, {.uid = 7, .gid = 8, .supplemental_gids = {9, 10}},
                                        {{.key = "image a", .lun = 5}, {.key = "block 7:0", .lun = 6}})
                  .ok());
  const std::vector<DiskRecord> by_key = {{.key = "block 7:0", .lun = 6}, {.key = "image a", .lun = 5}};
  EXPECT_EQ(OnlyContainer().disks, by_key);
  ASSERT_TRUE(store_->SetContainerStarted("c", 77).ok());
  ASSERT_TRUE(
      store_->SetLogCheckpoint("c", {.device = 9, .inode = 8, .size = 7, .stdout_offset = 6, .stderr_offset = 5}).ok());
  Open();
  ContainerRecord container = OnlyContainer();
  EXPECT_EQ(container.phase, ContainerPhase::kStarted);
  EXPECT_EQ(container.lun, 4U);
  EXPECT_EQ(container.status.started_at, 77);
  EXPECT_EQ(container.stop_signal, "SIGINT");
  ASSERT_TRUE(container.status.user.has_value());
  EXPECT_EQ(container.status.user->uid, 7U);
  EXPECT_EQ(container.status.user->gid, 8U);
  EXPECT_EQ(container.status.user->supplemental_gids, (std::vector<std::uint32_t>{9, 10}));
  EXPECT_EQ(container.checkpoint.inode, 8U);
  EXPECT_EQ(container.checkpoint.stderr_offset, 5U);
  container.status.exit_code = 3;
  container.status.finished_at = 99;
  container.status.reason = "Error";
  ASSERT_TRUE(store_->SetContainerExited(container.status).ok());
  container = OnlyContainer();
  EXPECT_EQ(container.phase, ContainerPhase::kExited);
  EXPECT_EQ(container.status.exit_code, 3);
  EXPECT_EQ(container.status.reason, "Error");
  ASSERT_TRUE(store_->RemoveContainer("c").ok());
  EXPECT_TRUE(store_->Containers()->empty());
}

TEST_F(StoreTest, LimitsThatAreRecordedAndThoseInForce) {
  ASSERT_TRUE(store_->AddPod(Pod("p"), 1000, 3).ok());
  ASSERT_TRUE(store_->AddContainer(Container("c", "p")).ok());
  EXPECT_FALSE(OnlyContainer().limits_in_force);
  ContainerConfig config;
  config.resources.memory_limit_bytes = 64;
  LinuxResources in_force;
  in_force.memory_limit_bytes = 32;
  ASSERT_TRUE(store_->SetContainerConfig("c", config, in_force).ok());
  Open();
  EXPECT_EQ(OnlyContainer().status.config.resources.memory_limit_bytes, 64);
  ASSERT_TRUE(OnlyContainer().limits_in_force);
  EXPECT_EQ(OnlyContainer().limits_in_force->memory_limit_bytes, 32);
  ASSERT_TRUE(store_->SetContainerConfig("c", config, std::nullopt).ok());
  EXPECT_FALSE(OnlyContainer().limits_in_force);
}

TEST_F(StoreTest, HugeNumbersComeBack) {
  ASSERT_TRUE(store_->AddPod(Pod("p"), 1000, 3).ok());
  ASSERT_TRUE(store_->AddContainer(Container("c", "p")).ok());
  EXPECT_EQ(OnlyContainer().checkpoint.inode, std::numeric_limits<std::uint64_t>::max());
}

TEST_F(StoreTest, ContainersGoWithTheirPod) {
  ASSERT_TRUE(store_->AddPod(Pod("p"), 1000, 3).ok());
  ASSERT_TRUE(store_->AddContainer(Container("c", "p")).ok());
  ASSERT_TRUE(store_->RemovePod("p").ok());
  EXPECT_TRUE(store_->Containers()->empty());
}

TEST_F(StoreTest, WhatIsNotThereIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(store_->SetPodReady("nobody", "")));
  EXPECT_TRUE(absl::IsNotFound(store_->SetContainerStarted("nobody", 1)));
  EXPECT_FALSE(store_->AddContainer(Container("c", "nobody")).ok());
}

TEST_F(StoreTest, KeepsTheBootId) {
  EXPECT_EQ(*store_->BootId(), "");
  ASSERT_TRUE(store_->SetBootId("one").ok());
  ASSERT_TRUE(store_->SetBootId("two").ok());
  Open();
  EXPECT_EQ(*store_->BootId(), "two");
}

}  // namespace
}  // namespace husk::sandbox
