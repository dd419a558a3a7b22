// Containers with mounts: what the guest is given, what comes back, and what a new huskd goes on with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ContainerVolumesTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
    fs::create_directories(ConfigMap() + "/..1");
    fs::create_directory_symlink("..1", ConfigMap() + "/..data");
    Write(ConfigMap() + "/..1/key", "one");
    fs::create_symlink("..data/key", ConfigMap() + "/key");
    fs::create_directories(PodDirectory() + "/containers/main");
    Write(TerminationLog(), "");
  }

  [[nodiscard]] std::string PodDirectory() const { return directory_ + "/kubelet/pods/uid-pod"; }
  [[nodiscard]] std::string ConfigMap() const { return PodDirectory() + "/volumes/kubernetes.io~configmap/config"; }
  [[nodiscard]] std::string TerminationLog() const { return PodDirectory() + "/containers/main/1234"; }

  static void Write(const std::string& path, const std::string& bytes) { std::ofstream(path) << bytes; }
  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // The kubelet's update of a ConfigMap.
  void Swap(const std::string& value) {
    fs::create_directories(ConfigMap() + "/..2");
    Write(ConfigMap() + "/..2/key", value);
    fs::create_directory_symlink("..2", ConfigMap() + "/..data_tmp");
    fs::rename(ConfigMap() + "/..data_tmp", ConfigMap() + "/..data");
    fs::remove_all(ConfigMap() + "/..1");
  }

  [[nodiscard]] ContainerConfig ConfigWithMounts() const {
    ContainerConfig config = Config("main");
    config.mounts = {
        {.container_path = "/config", .host_path = ConfigMap(), .read_only = true},
        {.container_path = "/dev/termination-log", .host_path = TerminationLog(), .read_only = false},
    };
    return config;
  }
  std::string CreateWithMounts() {
    const auto id = runtime_->CreateContainer(context_, pod_, ConfigWithMounts());
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or("");
  }
  // The id, in the guest, of the container's n-th volume.
  std::string VolumeOf(const std::string& container_id, int index) {
    const auto spec = Guest(pod_).container_spec(container_id);
    if (!spec || spec->volume_mounts_size() <= index) return "";
    return spec->volume_mounts(index).volume_id();
  }

  std::string pod_;
};

TEST_F(ContainerVolumesTest, AreInTheGuestBeforeTheContainerIs) {
  const std::string id = CreateWithMounts();
  const auto spec = Guest(pod_).container_spec(id);
  ASSERT_TRUE(spec);
  ASSERT_EQ(spec->volume_mounts_size(), 2);
  EXPECT_EQ(spec->volume_mounts(0).destination(), "/config");
  EXPECT_TRUE(spec->volume_mounts(0).read_only());
  EXPECT_EQ(spec->volume_mounts(1).destination(), "/dev/termination-log");
  EXPECT_FALSE(spec->volume_mounts(1).read_only());
  const auto volume = Guest(pod_).volume(VolumeOf(id, 0));
  ASSERT_TRUE(volume);
  EXPECT_EQ(volume->at("..data"), "-> ..1");
  EXPECT_EQ(volume->at("..1/key"), "one");
}

TEST_F(ContainerVolumesTest, TerminationMessageIsOnTheHostBeforeTheExitShows) {
  const std::string id = CreateWithMounts();
  ASSERT_TRUE(runtime_->StartContainer(context_, id).ok());
  const std::string message(4096, 'm');
  Guest(pod_).WriteVolume(VolumeOf(id, 1), "", message);
  Guest(pod_).Block("ReadVolume");
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 1));
  ASSERT_TRUE(Guest(pod_).WaitForCalls("ReadVolume", 1));
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  Guest(pod_).Release("ReadVolume");
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_EQ(Read(TerminationLog()), message);
}

TEST_F(ContainerVolumesTest, ExitShowsThoughTheMessageCannotBeRead) {
  const std::string id = CreateWithMounts();
  ASSERT_TRUE(runtime_->StartContainer(context_, id).ok());
  Guest(pod_).FailNext("ReadVolume", absl::InternalError("no such luck"), 1000);
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 3));
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_EQ(StatusOf(id).exit_code, 3);
}

TEST_F(ContainerVolumesTest, TerminationFileGoesWithItsContainerAndSharedOnesStay) {
  const std::string id = CreateWithMounts();
  const std::string shared = VolumeOf(id, 0);
  const std::string own = VolumeOf(id, 1);
  ASSERT_TRUE(runtime_->RemoveContainer(context_, id).ok());
  EXPECT_TRUE(Guest(pod_).volume(shared));
  EXPECT_FALSE(Guest(pod_).volume(own));
}

TEST_F(ContainerVolumesTest, ChangesReachTheGuest) {
  const std::string id = CreateWithMounts();
  Swap("two");
  EXPECT_TRUE(Eventually([&] {
    const auto volume = Guest(pod_).volume(VolumeOf(id, 0));
    return volume && volume->contains("..2/key") && volume->at("..data") == "-> ..2" && !volume->contains("..1/key");
  }));
}

TEST_F(ContainerVolumesTest, ChangesMadeWhileNobodyWatchedReachTheGuest) {
  const std::string id = CreateWithMounts();
  ASSERT_TRUE(runtime_->StartContainer(context_, id).ok());
  runtime_.reset();
  Swap("two");
  Start();
  EXPECT_TRUE(Eventually([&] {
    const auto volume = Guest(pod_).volume(VolumeOf(id, 0));
    return volume && volume->at("..data") == "-> ..2" && !volume->contains("..1/key");
  }));
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
}

TEST_F(ContainerVolumesTest, TerminationMessageOfAnAbsenceComesBack) {
  const std::string id = CreateWithMounts();
  ASSERT_TRUE(runtime_->StartContainer(context_, id).ok());
  const std::string volume = VolumeOf(id, 1);
  runtime_.reset();
  Guest(pod_).WriteVolume(volume, "", "died alone");
  ASSERT_TRUE(Guest(pod_).Exit(id, "", 2));
  Start();
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_EQ(Read(TerminationLog()), "died alone");
}

TEST_F(ContainerVolumesTest, MissingHostPathIsAnErrorAndLeavesNothing) {
  ContainerConfig config = ConfigWithMounts();
  config.mounts.push_back({.container_path = "/more", .host_path = PodDirectory() + "/nothing", .read_only = true});
  const auto id = runtime_->CreateContainer(context_, pod_, config);
  EXPECT_TRUE(absl::IsInvalidArgument(id.status())) << id.status();
  EXPECT_THAT(id.status().message(), HasSubstr("/nothing: does not exist"));
  EXPECT_THAT(id.status().message(), HasSubstr("mount /more"));
  EXPECT_THAT(runtime_->ListContainers({}), IsEmpty());
  EXPECT_THAT(Guest(pod_).container_ids(), IsEmpty());
  EXPECT_EQ(images_.leases(), 0);
}

TEST_F(ContainerVolumesTest, TwoContainersShareAnEmptyDirectory) {
  const std::string path = PodDirectory() + "/volumes/kubernetes.io~empty-dir/shared";
  fs::create_directories(path);
  std::string ids[2];
  for (int i = 0; i < 2; ++i) {
    ContainerConfig config = Config("c" + std::to_string(i));
    config.mounts = {{.container_path = "/shared", .host_path = path, .read_only = i == 1}};
    const auto id = runtime_->CreateContainer(context_, pod_, config);
    ASSERT_TRUE(id.ok()) << id.status();
    ids[i] = *id;
  }
  EXPECT_EQ(VolumeOf(ids[0], 0), VolumeOf(ids[1], 0));
  EXPECT_NE(VolumeOf(ids[0], 0), "");
}

}  // namespace
}  // namespace husk::sandbox
