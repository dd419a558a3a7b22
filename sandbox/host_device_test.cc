#include "sandbox/host_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class HostDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "husk-device-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { fs::remove_all(directory_); }

  static ContainerDevice At(const std::string& host_path) {
    return {.container_path = "/dev/given", .host_path = host_path, .permissions = "rw"};
  }
  static std::string Refusal(const ContainerDevice& device) {
    return std::string(OpenHostDevice(device).status().message());
  }

  std::string directory_;
};

TEST_F(HostDeviceTest, TheGuestsOwnAreNamed) {
  const auto null = OpenHostDevice(At("/dev/null"));
  ASSERT_TRUE(null.ok()) << null.status();
  EXPECT_FALSE(null->descriptor.valid());
  EXPECT_EQ(null->guest_path, "/dev/null");
  struct stat info{};
  ASSERT_EQ(stat("/dev/null", &info), 0);
  EXPECT_EQ(null->node.mode, info.st_mode & 0777U);

  // By whatever name, and though this host may have none.
  fs::create_symlink("/dev/null", directory_ + "/link");
  EXPECT_EQ(OpenHostDevice(At(directory_ + "/link"))->guest_path, "/dev/null");
  const auto ppp = OpenHostDevice(At("/dev/ppp"));
  ASSERT_TRUE(ppp.ok()) << ppp.status();
  EXPECT_EQ(ppp->guest_path, "/dev/ppp");
}

TEST_F(HostDeviceTest, AskedForModesWin) {
  ContainerDevice device = At("/dev/zero");
  device.mode = 0600;
  device.gid = 44;
  const auto found = OpenHostDevice(device);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->node.mode, 0600U);
  EXPECT_EQ(found->node.uid, 0U);
  EXPECT_EQ(found->node.gid, 44U);
}

TEST_F(HostDeviceTest, WhatTheHostAloneHasIsRefusedByName) {
  // Every kernel has this one, but a terminal is somebody's.
  const Status refused = OpenHostDevice(At("/dev/ptmx")).status();
  EXPECT_TRUE(absl::IsUnimplemented(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("host_path /dev/ptmx"));
}

TEST_F(HostDeviceTest, WhatIsNoDeviceIsRefusedByName) {
  const std::string file = directory_ + "/file";
  std::ofstream(file) << "x";
  EXPECT_THAT(Refusal(At(file)), HasSubstr(file + " is no device"));
  EXPECT_THAT(Refusal(At(directory_)), HasSubstr(directory_ + " is no device"));
  EXPECT_THAT(Refusal(At("/dev/no-such\n-device")), HasSubstr("/dev/no-such\\n-device: there is no such device"));
  fs::create_symlink(directory_ + "/nowhere", directory_ + "/dangling");
  EXPECT_THAT(Refusal(At(directory_ + "/dangling")), HasSubstr("there is no such device"));
}

TEST_F(HostDeviceTest, PathsAndPermissionsThatMakeNoSenseAreRefused) {
  for (const std::string& path : std::vector<std::string>{"", "/", "dev/x", "/dev/../x", "/dev/", "/dev//x"}) {
    ContainerDevice device = At("/dev/null");
    device.container_path = path;
    EXPECT_THAT(Refusal(device), HasSubstr("container_path \"" + path + "\"")) << path;
  }
  for (const std::string& permissions : std::vector<std::string>{"", "x", "rw,"}) {
    ContainerDevice device = At("/dev/null");
    device.permissions = permissions;
    EXPECT_THAT(Refusal(device), HasSubstr("permissions \"" + permissions + "\"")) << permissions;
  }
  EXPECT_THAT(Refusal(At("dev/null")), HasSubstr("host_path \"dev/null\""));
}

}  // namespace
}  // namespace husk::sandbox
