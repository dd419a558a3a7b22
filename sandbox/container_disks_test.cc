// Disks of a pod's VM that its containers share: of images that are volumes, and devices in the specification.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

class ContainerDisksTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    pod_ = RunPod();
  }

  static ContainerMount ImageAt(const std::string& container_path, const std::string& image) {
    return {
        .container_path = container_path, .host_path = "", .read_only = true, .image = image, .image_sub_path = "data"};
  }
  static ContainerConfig WithMounts(const std::string& name, std::vector<ContainerMount> mounts) {
    ContainerConfig config = Config(name);
    config.mounts = std::move(mounts);
    return config;
  }
  std::string Create(const ContainerConfig& config) {
    const auto id = runtime_->CreateContainer(context_, pod_, config);
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or("");
  }
  std::set<std::uint32_t> Luns() {
    std::set<std::uint32_t> luns;
    const auto vm = machine_.vm(pod_);
    for (const auto& [lun, disk] : vm->disks) luns.insert(lun);
    return luns;
  }

  std::string pod_;
};

TEST_F(ContainerDisksTest, AnImageIsOneDiskHoweverItIsUsed) {
  const std::string first =
      Create(WithMounts("first", {ImageAt("/a", "other"), ImageAt("/b", "sha256:other"), ImageAt("/c", "app")}));
  EXPECT_THAT(Luns(), SizeIs(2));
  const auto spec = Guest(pod_).container_spec(first);
  ASSERT_EQ(spec->image_mounts_size(), 3);
  EXPECT_EQ(spec->image_mounts(0).destination(), "/a");
  EXPECT_EQ(spec->image_mounts(0).sub_path(), "data");
  EXPECT_EQ(spec->image_mounts(0).lun(), spec->image_mounts(1).lun());
  EXPECT_EQ(spec->image_mounts(2).lun(), spec->image_lun());
  EXPECT_EQ(spec->volume_mounts_size(), 0);

  ContainerConfig config = Config("second");
  config.image = "other";
  const std::string second = Create(config);
  EXPECT_EQ(Guest(pod_).container_spec(second)->image_lun(), spec->image_mounts(0).lun());
  EXPECT_THAT(Luns(), SizeIs(2));

  ASSERT_TRUE(runtime_->RemoveContainer(context_, first).ok());
  EXPECT_EQ(Luns(), std::set<std::uint32_t>{spec->image_mounts(0).lun()});
  ASSERT_TRUE(runtime_->RemoveContainer(context_, second).ok());
  EXPECT_THAT(Luns(), SizeIs(0));
  EXPECT_EQ(images_.leases(), 0);
}

TEST_F(ContainerDisksTest, AVolumesImageIsInUseAlsoAfterARestart) {
  const std::string id = Create(WithMounts("main", {ImageAt("/a", "other")}));
  EXPECT_EQ(images_.leases(), 2);
  const auto luns = Luns();
  runtime_.reset();
  Start();
  EXPECT_EQ(images_.leases(), 2);
  EXPECT_EQ(Luns(), luns);
  // Found again by who comes later.
  const std::string second = Create(WithMounts("second", {ImageAt("/a", "other")}));
  EXPECT_EQ(Luns(), luns);
  ASSERT_TRUE(runtime_->RemoveContainer(context_, id).ok());
  EXPECT_EQ(Luns(), luns);
  ASSERT_TRUE(runtime_->RemoveContainer(context_, second).ok());
  EXPECT_THAT(Luns(), SizeIs(0));
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(ContainerDisksTest, AnImageThatIsNotThereIsSaidTheKubeletsWay) {
  const auto refused = runtime_->CreateContainer(context_, pod_, WithMounts("main", {ImageAt("/a", "absent")}));
  EXPECT_TRUE(absl::IsNotFound(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()), StartsWith("ImageVolumeMountFailed: mount /a: image absent: "));
  EXPECT_THAT(Luns(), SizeIs(0));
  EXPECT_EQ(images_.leases(), 0);
  EXPECT_TRUE(runtime_->ListContainers({}).empty());
}

TEST_F(ContainerDisksTest, TheGuestsWordsForASubPathComeFirst) {
  Guest(pod_).FailNext("CreateContainer", absl::FailedPreconditionError(
                                              "ImageVolumeMountFailed: image_sub_path \"x\" is not in the image"));
  const auto refused = runtime_->CreateContainer(context_, pod_, WithMounts("main", {ImageAt("/a", "other")}));
  EXPECT_EQ(refused.status().message(), "ImageVolumeMountFailed: image_sub_path \"x\" is not in the image");
  EXPECT_THAT(Luns(), SizeIs(0));
}

TEST_F(ContainerDisksTest, DevicesThatTheGuestHasAreNamedToIt) {
  ContainerConfig config = Config("main");
  config.devices = {{.container_path = "/dev/tap", .host_path = "/dev/net/tun", .permissions = "rwm"},
                    {.container_path = "/dev/nothing", .host_path = "/dev/null", .permissions = "r"}};
  const std::string id = Create(config);
  const auto spec = Guest(pod_).container_spec(id);
  ASSERT_EQ(spec->devices_size(), 2);
  EXPECT_EQ(spec->devices(0).path(), "/dev/tap");
  EXPECT_EQ(spec->devices(0).guest_path(), "/dev/net/tun");
  EXPECT_EQ(spec->devices(0).permissions(), "rwm");
  EXPECT_EQ(spec->devices(1).guest_path(), "/dev/null");
  EXPECT_EQ(spec->devices(1).permissions(), "r");
}

TEST_F(ContainerDisksTest, ARefusedDeviceIsNamedAndLeavesNothing) {
  ContainerConfig config = Config("main");
  config.devices = {{.container_path = "/dev/a", .host_path = "/dev/ptmx", .permissions = "rw"}};
  const auto refused = runtime_->CreateContainer(context_, pod_, config);
  EXPECT_TRUE(absl::IsUnimplemented(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()), StartsWith("device /dev/a: host_path /dev/ptmx: "));
  config.devices = {{.container_path = "/dev/a", .host_path = "/dev/null"},
                    {.container_path = "/dev/a", .host_path = "/dev/zero"}};
  const auto twice = runtime_->CreateContainer(context_, pod_, config);
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr("device /dev/a: the container has two devices there"));
  EXPECT_THAT(Luns(), SizeIs(0));
  EXPECT_TRUE(runtime_->ListContainers({}).empty());
}

}  // namespace
}  // namespace husk::sandbox
