#include "sandbox/cdi/inject.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::SizeIs;

class InjectTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "husk-cdi-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    for (const char* name : {"/first", "/second"}) {
      fs::create_directory(root_ + name);
      directories_.push_back(root_ + name);
    }
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& name, const std::string& devices, const std::string& edits = "{}") {
    std::ofstream(root_ + "/" + name) << "{cdiVersion: 0.6.0, kind: v.com/c, containerEdits: " << edits
                                      << ", devices: [" << devices << "]}";
  }
  static std::string Device(const std::string& name, const std::string& edits) {
    return "{name: " + name + ", containerEdits: " + edits + "}";
  }
  StatusOr<ContainerConfig> Inject(std::vector<std::string> names) {
    ContainerConfig config;
    config.environment = {{"OWN", "1"}};
    config.cdi_devices = std::move(names);
    return InjectCdiDevices(directories_, config);
  }
  std::string Refusal(const std::string& name) { return std::string(Inject({name}).status().message()); }

  std::string root_;
  std::vector<std::string> directories_;
};

TEST_F(InjectTest, PutsEveryEditIn) {
  Write("first/a.yaml",
        Device("d",
               "{env: [A=1], deviceNodes: [{path: /dev/x, hostPath: /dev/null, type: c, major: 1, minor: 3}], mounts: "
               "[{hostPath: /opt, containerPath: /v}], additionalGids: [44]}") +
            ", " + Device("e", "{env: [E=1]}"),
        "{env: [ALL=1]}");
  const auto config = Inject({"v.com/c=d", "v.com/c=e", "v.com/c=d"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->environment, ElementsAre(Pair("OWN", "1"), Pair("ALL", "1"), Pair("A", "1"), Pair("E", "1")));
  ASSERT_THAT(config->devices, SizeIs(1));
  EXPECT_EQ(config->devices[0].container_path, "/dev/x");
  ASSERT_THAT(config->mounts, SizeIs(1));
  EXPECT_TRUE(config->mounts[0].of_device);
  EXPECT_THAT(config->security.user.supplemental_gids, ElementsAre(44));
}

TEST_F(InjectTest, WithoutDevicesNothingIsRead) {
  directories_ = {root_ + "/none"};
  EXPECT_TRUE(Inject({}).ok());
}

TEST_F(InjectTest, TheLaterDirectoryWins) {
  Write("first/a.yaml", Device("d", "{env: [FROM=first]}") + ", " + Device("only", "{env: [ONLY=1]}"));
  Write("second/b.json", Device("d", "{env: [FROM=second]}"));
  const auto config = Inject({"v.com/c=d", "v.com/c=only"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->environment, ElementsAre(Pair("OWN", "1"), Pair("FROM", "second"), Pair("ONLY", "1")));
}

TEST_F(InjectTest, ADeviceThatIsNowhereIsNamedWithTheDirectories) {
  Write("first/a.yaml", Device("d", "{}"));
  std::ofstream(root_ + "/second/broken.yaml") << "kind: [";
  std::ofstream(root_ + "/second/readme.txt") << "kind: [";
  directories_.push_back(root_ + "/none");
  EXPECT_THAT(Refusal("v.com/c=x"), AllOf(HasSubstr("CDI device v.com/c=x: no specification in " + root_ + "/first, " +
                                                    root_ + "/second, " + root_ + "/none defines it"),
                                          HasSubstr("second/broken.yaml: line 1"), Not(HasSubstr("readme"))));
  EXPECT_TRUE(absl::IsInvalidArgument(Inject({"x"}).status()));
}

TEST_F(InjectTest, TwoOfOneDirectoryAreAConflict) {
  Write("first/a.yaml", Device("d", "{}"));
  Write("first/b.yaml", Device("d", "{}"));
  EXPECT_THAT(Refusal("v.com/c=d"), AllOf(HasSubstr("a.yaml"), HasSubstr("b.yaml"), HasSubstr("define it")));
}

TEST_F(InjectTest, WhatCannotBeIsRefusedOfThatDeviceAlone) {
  Write("first/a.yaml",
        Device("hooked", "{hooks: [{hookName: createRuntime, path: /bin/x}]}") + ", " + Device("d", "{}"));
  EXPECT_TRUE(Inject({"v.com/c=d"}).ok());
  const Status refused = Inject({"v.com/c=hooked"}).status();
  EXPECT_TRUE(absl::IsUnimplemented(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("CDI device v.com/c=hooked of " + root_ + "/first/a.yaml"), HasSubstr("hooks: ")));
}

TEST_F(InjectTest, TheSpecificationHasToFitTheHostsDevice) {
  Write("first/a.yaml", Device("block", "{deviceNodes: [{path: /dev/null, type: b}]}") + ", " +
                            Device("numbers", "{deviceNodes: [{path: /dev/null, type: c, major: 1, minor: 5}]}") +
                            ", " + Device("missing", "{deviceNodes: [{path: /dev/no-such-device, type: c}]}"));
  EXPECT_THAT(Refusal("v.com/c=block"), HasSubstr("device /dev/null is not of type b"));
  EXPECT_THAT(Refusal("v.com/c=numbers"), HasSubstr("device /dev/null is 1:3"));
  EXPECT_THAT(Refusal("v.com/c=missing"), HasSubstr("/dev/no-such-device"));
}

TEST_F(InjectTest, FilesThatAreNoneDoNotHoldItUp) {
  Write("first/good.yaml", Device("d", "{}"));
  ASSERT_EQ(mkfifo((root_ + "/first/fifo.yaml").c_str(), 0600), 0);
  fs::create_directory(root_ + "/first/directory.json");
  fs::create_symlink(root_ + "/nowhere", root_ + "/first/dangling.json");
  EXPECT_TRUE(Inject({"v.com/c=d"}).ok());
  EXPECT_THAT(Refusal("v.com/c=x"), HasSubstr("fifo.yaml: is no regular file"));
}

TEST_F(InjectTest, NoMoreFilesThanAllowed) {
  for (int index = 0; index < 300; ++index) Write("first/" + std::to_string(1000 + index) + ".yaml", Device("n", "{}"));
  EXPECT_THAT(Refusal("v.com/c=x"), HasSubstr("more than 256 specifications"));
}

}  // namespace
}  // namespace husk::sandbox
