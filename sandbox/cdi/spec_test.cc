#include "sandbox/cdi/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace husk::sandbox {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr const char* kYaml = R"(
cdiVersion: "0.6.0"
kind: vendor.com/disk
annotations: {any: thing}
containerEdits:
  env: [ALL=1]
devices:
  - name: "1"
    containerEdits:
      env: ["PLACE=/dev/xvd", "EMPTY="]
      deviceNodes:
        - {path: /dev/xvda, hostPath: /dev/loop7, type: b, major: 7, minor: 7, fileMode: 0640, uid: 3, gid: 4, permissions: r}
        - {path: /dev/fuse}
      mounts:
        - {hostPath: /opt/lib, containerPath: /lib/vendor, options: [ro, nosuid, nodev, rbind, rprivate]}
      additionalGids: [44, 45]
  - name: all
    containerEdits: {}
)";

Status Refused(const std::string& text) {
  return ParseCdiSpec(text).status();
}

// A specification with this in its only device's edits.
std::string WithEdits(const std::string& edits) {
  return R"({"cdiVersion":"1.0.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":)" + edits + "}]}";
}

TEST(CdiSpecTest, ReadsYaml) {
  const auto spec = ParseCdiSpec(kYaml);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->kind, "vendor.com/disk");
  EXPECT_THAT(spec->edits.environment, ElementsAre(Pair("ALL", "1")));
  ASSERT_THAT(spec->devices, SizeIs(2));
  const CdiEdits& edits = spec->devices.at("1");
  EXPECT_THAT(edits.environment, ElementsAre(Pair("PLACE", "/dev/xvd"), Pair("EMPTY", "")));
  ASSERT_THAT(edits.devices, SizeIs(2));
  const CdiDeviceNode& disk = edits.devices[0];
  EXPECT_EQ(disk.device.container_path, "/dev/xvda");
  EXPECT_EQ(disk.device.host_path, "/dev/loop7");
  EXPECT_EQ(disk.device.permissions, "r");
  EXPECT_EQ(disk.device.mode, 0640U);
  EXPECT_EQ(disk.device.uid, 3U);
  EXPECT_EQ(disk.device.gid, 4U);
  EXPECT_EQ(disk.type, "b");
  EXPECT_EQ(disk.major, 7U);
  EXPECT_EQ(edits.devices[1].device.host_path, "/dev/fuse");
  EXPECT_EQ(edits.devices[1].device.permissions, "rwm");
  EXPECT_FALSE(edits.devices[1].device.mode.has_value());
  ASSERT_THAT(edits.mounts, SizeIs(1));
  EXPECT_TRUE(edits.mounts[0].read_only);
  EXPECT_TRUE(edits.mounts[0].of_device);
  EXPECT_THAT(edits.mounts[0].flags, ElementsAre("nosuid", "nodev"));
  EXPECT_THAT(edits.additional_gids, ElementsAre(44, 45));
  EXPECT_TRUE(edits.refusals.empty());
}

TEST(CdiSpecTest, ReadsJson) {
  const auto spec = ParseCdiSpec(WithEdits(
      R"({"env":["A=b=c"],"deviceNodes":[{"path":"/dev/a","fileMode":438}],"mounts":[{"hostPath":"/h","containerPath":"/c"}]})"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  const CdiEdits& edits = spec->devices.at("d");
  EXPECT_THAT(edits.environment, ElementsAre(Pair("A", "b=c")));
  EXPECT_EQ(edits.devices[0].device.mode, 0666U);
  EXPECT_FALSE(edits.mounts[0].read_only);
}

TEST(CdiSpecTest, WhatAVirtualMachineCannotHaveIsKeptByName) {
  const auto refusal = [](const std::string& edits) {
    const auto spec = ParseCdiSpec(WithEdits(edits));
    EXPECT_TRUE(spec.ok()) << spec.status();
    return spec.ok() && spec->devices.at("d").refusals.size() == 1 ? spec->devices.at("d").refusals[0] : "";
  };
  EXPECT_THAT(refusal(R"({"hooks":[{"hookName":"createContainer","path":"/bin/x"}]})"), HasSubstr("hooks: "));
  EXPECT_THAT(refusal(R"({"netDevices":[{"hostInterfaceName":"a","name":"b"}]})"), HasSubstr("netDevices: "));
  EXPECT_THAT(refusal(R"({"intelRdt":{"closID":"x"}})"), HasSubstr("intelRdt: "));
  EXPECT_THAT(refusal(R"({"deviceNodes":[{"path":"/dev/p","type":"p"}]})"), HasSubstr("deviceNodes: /dev/p"));
  EXPECT_THAT(refusal(R"({"mounts":[{"hostPath":"/h","containerPath":"/c","options":["slave"]}]})"),
              HasSubstr("option \"slave\""));
  EXPECT_THAT(refusal(R"({"mounts":[{"hostPath":"t","containerPath":"/c","type":"tmpfs"}]})"),
              HasSubstr("type \"tmpfs\""));
}

TEST(CdiSpecTest, WhatIsWrongIsNamed) {
  const auto message = [](const std::string& text) { return std::string(Refused(text).message()); };
  EXPECT_THAT(message(""), HasSubstr("is no object"));
  EXPECT_THAT(message("a: [b"), HasSubstr("line "));
  EXPECT_THAT(message("{cdiVersion: 9.0.0, kind: v.com/c, devices: [{name: d}]}"), HasSubstr("cdiVersion: \"9.0.0\""));
  EXPECT_THAT(message("{cdiVersion: 1.0.0, kind: v.com, devices: [{name: d}]}"), HasSubstr("kind: \"v.com\""));
  EXPECT_THAT(message("{cdiVersion: 1.0.0, kind: v.com/c}"), HasSubstr("devices: there is none"));
  EXPECT_THAT(message("{cdiVersion: 1.0.0, kind: v.com/c, devices: [{name: d}, {name: d}]}"),
              HasSubstr("d comes twice"));
  EXPECT_THAT(message("{cdiVersion: 1.0.0, kind: v.com/c, devices: [{name: '../d'}]}"), HasSubstr("devices[0].name"));
  EXPECT_THAT(message("{cdiVersion: 1.0.0, kind: v.com/c, device: []}"), HasSubstr("device: is no field"));
  EXPECT_THAT(message(WithEdits(R"({"env":["=x"]})")),
              HasSubstr("devices[0].containerEdits.env[0]: is not NAME=value"));
  EXPECT_THAT(message(WithEdits(R"({"deviceNodes":[{"hostPath":"/x"}]})")),
              HasSubstr("deviceNodes[0].path: is missing"));
  EXPECT_THAT(message(WithEdits(R"({"deviceNodes":[{"path":"/x","major":-1}]})")), HasSubstr("major: is no number"));
  EXPECT_THAT(message(WithEdits(R"({"mounts":[{"hostPath":"/x"}]})")), HasSubstr("containerPath: is missing"));
  EXPECT_THAT(message(WithEdits(R"({"hostname":"x"})")), HasSubstr("containerEdits.hostname: is no field"));
  EXPECT_THAT(message(WithEdits(R"({"env":"x"})")), HasSubstr("containerEdits.env: is no list"));
  EXPECT_THAT(message(WithEdits(R"({"a\u0007":1})")), HasSubstr("a\\x07"));
}

TEST(CdiSpecTest, IsBounded) {
  EXPECT_THAT(std::string(Refused(std::string(kLongestCdiSpec + 1, ' ')).message()), HasSubstr("more than 1 MiB"));
  std::string deep = "a: ";
  for (int level = 0; level < 100; ++level) deep += "[";
  for (int level = 0; level < 100; ++level) deep += "]";
  EXPECT_THAT(std::string(Refused(deep).message()), HasSubstr("nested too deep"));
  EXPECT_FALSE(Refused("a: " + std::string(500'000, '[')).ok());
  // Ten levels of ten aliases each.
  std::string laughs = "a0: &a0 x\n";
  for (int level = 1; level <= 10; ++level) {
    const std::string alias = "*a" + std::to_string(level - 1);
    std::string list = alias;
    for (int copy = 1; copy < 10; ++copy) list += ", " + alias;
    laughs += "a" + std::to_string(level) + ": &a" + std::to_string(level) + " [" + list + "]\n";
  }
  EXPECT_THAT(std::string(Refused(laughs).message()), HasSubstr("too many values"));
}

TEST(CdiNameTest, IsVendorClassAndDevice) {
  const auto name = ParseCdiName("vendor.com/gpu=GPU-0:1");
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_EQ(name->kind, "vendor.com/gpu");
  EXPECT_EQ(name->device, "GPU-0:1");
  for (const char* bad : {"", "x", "vendor.com/gpu", "vendor.com=0", "/gpu=0", "vendor.com/=0", "vendor.com/gpu=",
                          "1vendor/gpu=0", "vendor.com/a/b=0", "vendor.com/gpu=../0", "vendor.com/gpu=a\n"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseCdiName(bad).status())) << bad;
  }
}

}  // namespace
}  // namespace husk::sandbox
