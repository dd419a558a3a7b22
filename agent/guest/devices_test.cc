#include "agent/guest/devices.h"

#include <gtest/gtest.h>

#include <string>

namespace husk::agent {
namespace {

v1::Device OfGuest(const std::string& guest_path) {
  v1::Device device;
  device.set_path("/dev/given");
  device.set_permissions("rw");
  device.set_guest_path(guest_path);
  return device;
}

TEST(DevicesTest, AreTheGuestsOwnByNumber) {
  v1::Device device = OfGuest("/dev/null");
  const auto node = FindDevice(device);
  ASSERT_TRUE(node.ok()) << node.status();
  EXPECT_EQ(node->path, "/dev/given");
  EXPECT_FALSE(node->block);
  EXPECT_EQ(node->major, 1U);
  EXPECT_EQ(node->minor, 3U);
  EXPECT_EQ(node->access, "rw");
  EXPECT_EQ(node->mode, 0666U);

  device.set_mode(0640);
  device.set_uid(7);
  device.set_gid(8);
  const auto owned = FindDevice(device);
  ASSERT_TRUE(owned.ok()) << owned.status();
  EXPECT_EQ(owned->mode, 0640U);
  EXPECT_EQ(owned->uid, 7U);
  EXPECT_EQ(owned->gid, 8U);
}

TEST(DevicesTest, WhatIsMissingIsNamed) {
  const auto missing = FindDevice(OfGuest("/dev/nvidia0"));
  EXPECT_TRUE(absl::IsNotFound(missing.status())) << missing.status();
  EXPECT_NE(missing.status().message().find("/dev/nvidia0"), std::string::npos) << missing.status();
  v1::Device disk;
  disk.set_path("/dev/xvda");
  disk.set_permissions("r");
  disk.set_lun(16383);
  EXPECT_TRUE(absl::IsNotFound(FindDevice(disk).status()));
}

TEST(DevicesTest, RefusesWhatIsNoDeviceOfTheGuest) {
  for (const char* path : {"", "null", "/etc/passwd", "/dev", "/dev/../etc/passwd", "/dev/./null", "/dev//null",
                           "/dev/shm", "/dev/stdin"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(FindDevice(OfGuest(path)).status())) << path;
  }
}

TEST(DevicesTest, RefusesPathsAndPermissionsThatMakeNoSense) {
  for (const char* path : {"", "/", "dev/x", "/dev/../x", "/dev/"}) {
    v1::Device device = OfGuest("/dev/null");
    device.set_path(path);
    EXPECT_TRUE(absl::IsInvalidArgument(FindDevice(device).status())) << path;
  }
  for (const char* permissions : {"", "rx", "rw "}) {
    v1::Device device = OfGuest("/dev/null");
    device.set_permissions(permissions);
    EXPECT_TRUE(absl::IsInvalidArgument(FindDevice(device).status())) << permissions;
  }
}

}  // namespace
}  // namespace husk::agent
