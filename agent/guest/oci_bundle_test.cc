#include "agent/guest/oci_bundle.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace husk::agent {
namespace {

using Json = nlohmann::json;

BundleFacts Facts() {
  BundleFacts facts;
  facts.root_path = "/run/husk/roots/c";
  facts.readonly_root = true;
  facts.terminal = true;
  facts.cgroups_path = "/husk/c";
  facts.user = {.uid = 1000, .gid = 1001, .additional_gids = {10, 29}, .home = "/home/alice"};
  facts.pod_files = "/run/husk/pod";
  return facts;
}

Json MountAt(const Json& config, const std::string& destination) {
  Json found;
  for (const Json& mount : config["mounts"]) {
    if (mount["destination"] == destination) {
      EXPECT_TRUE(found.is_null()) << destination << " is mounted twice";
      found = mount;
    }
  }
  return found;
}

TEST(OciBundleTest, FillsInWhatTheGuestKnows) {
  const auto text = CompleteConfig(R"({"process":{"args":["a"],"env":["X=1"],"user":{"uid":5,"umask":18}},
      "linux":{"cgroupsPath":"/escape","seccomp":{"a":1}}})",
                                   Facts());
  ASSERT_TRUE(text.ok()) << text.status();
  const Json config = Json::parse(*text);
  EXPECT_EQ(config["root"], Json::parse(R"({"path":"/run/husk/roots/c","readonly":true})"));
  EXPECT_EQ(config["process"]["user"], Json::parse(R"({"uid":1000,"gid":1001,"additionalGids":[10,29],"umask":18})"));
  EXPECT_EQ(config["process"]["env"], Json::parse(R"(["X=1","HOME=/home/alice"])"));
  EXPECT_EQ(config["process"]["terminal"], true);
  EXPECT_EQ(config["linux"], Json::parse(R"({"cgroupsPath":"/husk/c","seccomp":{"a":1}})"));
  EXPECT_EQ(MountAt(config, "/etc/resolv.conf")["source"], "/run/husk/pod/resolv.conf");
  EXPECT_EQ(MountAt(config, "/etc/hosts")["source"], "/run/husk/pod/hosts");
  EXPECT_EQ(MountAt(config, "/etc/hostname")["source"], "/run/husk/pod/hostname");
  EXPECT_EQ(MountAt(config, "/dev/shm")["source"], "/run/husk/pod/shm");
}

TEST(OciBundleTest, KeepsTheConfigurationsOwnMountsAndHome) {
  const auto text = CompleteConfig(R"({"process":{"env":["HOME=/x"]},"mounts":[
      {"destination":"/etc/hosts","type":"bind","source":"/vol/hosts"},
      {"destination":"/dev/shm","type":"bind","source":"/vol/memory"}]})",
                                   Facts());
  ASSERT_TRUE(text.ok()) << text.status();
  const Json config = Json::parse(*text);
  EXPECT_EQ(MountAt(config, "/etc/hosts")["source"], "/vol/hosts");
  EXPECT_EQ(MountAt(config, "/dev/shm")["source"], "/vol/memory");
  EXPECT_EQ(config["process"]["env"], Json::parse(R"(["HOME=/x"])"));
}

TEST(OciBundleTest, ATmpfsAtShmBecomesThePods) {
  const auto text = CompleteConfig(R"({"mounts":[{"destination":"/dev/shm","type":"tmpfs","source":"shm"}]})", Facts());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(MountAt(Json::parse(*text), "/dev/shm")["source"], "/run/husk/pod/shm");
}

TEST(OciBundleTest, RefusesWhatIsNoConfiguration) {
  const std::string deep = std::string(5000, '[') + std::string(5000, ']');
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("{"), std::string(R"({"process":[]})"),
        std::string(R"({"process":{"env":{}}})"), std::string(R"({"process":{"user":3}})"),
        std::string(R"({"mounts":{}})"), std::string(R"({"linux":1})"), R"({"a":)" + deep + "}"}) {
    EXPECT_EQ(CompleteConfig(text, Facts()).status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 40);
  }
}

TEST(OciBundleTest, ExecTakesTheContainersProcess) {
  const auto config = CompleteConfig(R"({"process":{"args":["a"],"cwd":"/w","consoleSize":{"width":1}}})", Facts());
  ASSERT_TRUE(config.ok());
  const auto text = ExecProcess(*config, {"ls", "-l", "caf\xc3\xa9"}, false);
  ASSERT_TRUE(text.ok()) << text.status();
  const Json process = Json::parse(*text);
  EXPECT_EQ(process["args"], Json::parse("[\"ls\",\"-l\",\"caf\xc3\xa9\"]"));
  EXPECT_EQ(process["cwd"], "/w");
  EXPECT_EQ(process["terminal"], false);
  EXPECT_EQ(process["user"]["uid"], 1000);
  EXPECT_FALSE(ExecProcess(*config, {}, false).ok());
  EXPECT_FALSE(ExecProcess(*config, {"a\xff"}, false).ok());
  EXPECT_FALSE(ExecProcess(*config, {std::string("a\0b", 3)}, false).ok());
}

}  // namespace
}  // namespace husk::agent
