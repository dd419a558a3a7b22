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

TEST(OciBundleTest, AnIpcNamespaceOfItsOwnHasItsOwnSharedMemory) {
  const auto text = CompleteConfig(R"({"mounts":[{"destination":"/dev/shm","type":"tmpfs","source":"shm"}],
                                       "linux":{"namespaces":[{"type":"ipc"}]}})",
                                   Facts());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(MountAt(Json::parse(*text), "/dev/shm")["source"], "shm");
}

TEST(OciBundleTest, JoinsAPidNamespaceInsteadOfItsOwn) {
  BundleFacts facts = Facts();
  facts.pid_namespace = "/proc/1/fd/7";
  const auto text = CompleteConfig(R"({"linux":{"namespaces":[{"type":"pid"},{"type":"mount"}]}})", facts);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(Json::parse(*text)["linux"]["namespaces"],
            Json::parse(R"([{"type":"mount"},{"type":"pid","path":"/proc/1/fd/7"}])"));
  EXPECT_FALSE(CompleteConfig(R"({"linux":{"namespaces":{}}})", facts).ok());
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
  EXPECT_EQ(config["linux"], Json::parse(R"({"cgroupsPath":"/husk/c","namespaces":[],"seccomp":{"a":1}})"));
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

TEST(OciBundleTest, AnExecWithATerminalKnowsItsKind) {
  const auto environment = [](const char* process, bool terminal) {
    const auto config = CompleteConfig(process, Facts());
    return Json::parse(ExecProcess(config.value(), {"vi"}, terminal).value()).value("env", Json::array()).dump();
  };
  EXPECT_EQ(environment(R"({"process":{"env":["A=1","TERM=vt100"]}})", true).find("xterm"), std::string::npos);
  EXPECT_NE(environment(R"({"process":{"env":["A=1"]}})", true).find("\"TERM=xterm\""), std::string::npos);
  EXPECT_EQ(environment(R"({"process":{"env":["A=1"]}})", false).find("xterm"), std::string::npos);
}

TEST(OciBundleTest, DevicesGetANodeAndARuleBehindTheOnesThatAreThere) {
  BundleFacts facts = Facts();
  facts.devices = {{.path = "/dev/xvda", .block = true, .major = 8, .minor = 32, .access = "r", .mode = 0640, .gid = 6},
                   {.path = "/dev/fuse", .major = 10, .minor = 229, .access = "rwm", .mode = 0666}};
  const auto text = CompleteConfig(R"({"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}]}}})", facts);
  ASSERT_TRUE(text.ok()) << text.status();
  const Json part = Json::parse(*text)["linux"];
  EXPECT_EQ(part["devices"], Json::parse(R"([
      {"path":"/dev/xvda","type":"b","major":8,"minor":32,"fileMode":416,"uid":0,"gid":6},
      {"path":"/dev/fuse","type":"c","major":10,"minor":229,"fileMode":438,"uid":0,"gid":0}])"));
  EXPECT_EQ(part["resources"]["devices"], Json::parse(R"([{"allow":false,"access":"rwm"},
      {"allow":true,"type":"b","major":8,"minor":32,"access":"r"},
      {"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"}])"));
}

TEST(OciBundleTest, VolumesMayHaveMoreFlags) {
  BundleFacts facts = Facts();
  facts.volumes = {{.source = "/s", .destination = "/d", .read_only = true, .flags = {"nosuid", "noexec"}}};
  const auto text = CompleteConfig("{}", facts);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(MountAt(Json::parse(*text), "/d")["options"],
            Json::parse(R"(["rbind","rprivate","ro","nosuid","noexec"])"));
}

}  // namespace
}  // namespace husk::agent
