#include "sandbox/oci/oci_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class OciConfigTest : public testing::Test {
 protected:
  OciConfigTest() {
    container_.metadata.name = "app";
    container_.image = "example/app:1";
    image_.entrypoint = {"/entry"};
    image_.command = {"serve", "--all"};
    image_.environment = {"PATH=/opt/bin", "MODE=image", "broken"};
    image_.working_directory = "/srv";
  }
  StatusOr<std::string> Make() { return MakeOciConfig(pod_, "c1", container_, image_); }
  Json Config() {
    const auto text = Make();
    EXPECT_TRUE(text.ok()) << text.status();
    return text.ok() ? Json::parse(*text) : Json();
  }
  Json Arguments() { return Config()["process"]["args"]; }

  PodConfig pod_;
  ContainerConfig container_;
  images::ImageRunConfig image_;
};

TEST_F(OciConfigTest, CommandAndArgumentsFollowKubernetes) {
  EXPECT_EQ(Arguments(), Json({"/entry", "serve", "--all"}));
  container_.arguments = {"once"};
  EXPECT_EQ(Arguments(), Json({"/entry", "once"}));
  container_.command = {"/bin/sh"};
  EXPECT_EQ(Arguments(), Json({"/bin/sh", "once"}));
  container_.arguments.clear();
  EXPECT_EQ(Arguments(), Json({"/bin/sh"}));
}

TEST_F(OciConfigTest, NothingToRunIsAnErrorThatNamesTheImage) {
  image_.entrypoint.clear();
  image_.command.clear();
  const auto config = Make();
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("example/app:1"));
}

TEST_F(OciConfigTest, TheConfigurationsVariablesReplaceTheImages) {
  container_.environment = {{"MODE", "pod"}, {"EMPTY", ""}, {"LINES", "a\nb=c"}};
  EXPECT_EQ(Config()["process"]["env"], Json({"PATH=/opt/bin", "MODE=pod", "EMPTY=", "LINES=a\nb=c"}));
}

TEST_F(OciConfigTest, ThereIsAlwaysAPath) {
  image_.environment.clear();
  EXPECT_EQ(Config()["process"]["env"], Json({"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}));
}

TEST_F(OciConfigTest, BytesThatJsonCannotSayAreRefusedByName) {
  container_.environment = {{"BLOB", "\xff\xfe"}};
  EXPECT_THAT(std::string(Make().status().message()), HasSubstr("environment variable BLOB is not UTF-8"));
  container_.environment = {{"BLOB", std::string("a\0b", 3)}};
  EXPECT_THAT(std::string(Make().status().message()), HasSubstr("BLOB has a NUL byte"));
  container_.environment = {{"A=B", "x"}};
  EXPECT_THAT(std::string(Make().status().message()), HasSubstr("\"A=B\""));
  container_.environment.clear();
  container_.arguments = {"\xff"};
  EXPECT_EQ(Make().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(OciConfigTest, TheWorkingDirectory) {
  EXPECT_EQ(Config()["process"]["cwd"], "/srv");
  container_.working_directory = "/data";
  EXPECT_EQ(Config()["process"]["cwd"], "/data");
  container_.working_directory = "data";
  EXPECT_FALSE(Make().ok());
  container_.working_directory.clear();
  image_.working_directory.clear();
  EXPECT_EQ(Config()["process"]["cwd"], "/");
}

TEST_F(OciConfigTest, APodsContainersShareAllNamespacesButTheirOwn) {
  const Json namespaces = Config()["linux"]["namespaces"];
  EXPECT_EQ(namespaces, Json::parse(R"([{"type":"mount"},{"type":"cgroup"},{"type":"pid"}])"));
}

TEST_F(OciConfigTest, ContainersThatShareTheirProcessesJoinANamespaceInTheGuest) {
  for (const NamespaceMode mode : {NamespaceMode::kPod, NamespaceMode::kTarget}) {
    container_.security.namespaces.pid = mode;
    EXPECT_EQ(Config()["linux"]["namespaces"], Json::parse(R"([{"type":"mount"},{"type":"cgroup"}])"));
  }
}

TEST_F(OciConfigTest, AnIpcNamespaceOfItsOwnHasThePodsSysctls) {
  pod_.sysctls = {{"kernel/shmmax", "1"}, {"fs.mqueue.msg_max", "2"}, {"net.core.somaxconn", "3"}};
  EXPECT_FALSE(Config()["linux"].contains("sysctl"));
  container_.security.namespaces.ipc = NamespaceMode::kContainer;
  const Json config = Config();
  EXPECT_THAT(config["linux"]["namespaces"], Contains(Json({{"type", "ipc"}})));
  EXPECT_EQ(config["linux"]["sysctl"], Json({{"kernel.shmmax", "1"}, {"fs.mqueue.msg_max", "2"}}));
}

TEST_F(OciConfigTest, OpenFilesHaveALimitThatProgramsCanRaise) {
  EXPECT_EQ(Config()["process"]["rlimits"],
            Json::parse(R"([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524288}])"));
}

TEST_F(OciConfigTest, Cfg02AWorkingDirectoryInProcIsRefused) {
  for (const char* directory : {"/proc/self/fd/7", "/proc", "//proc//self", "/a/../proc/self/cwd", "/./proc/1/root"}) {
    container_.working_directory = directory;
    EXPECT_EQ(Make().status().code(), absl::StatusCode::kInvalidArgument) << directory;
    EXPECT_THAT(std::string(Make().status().message()), HasSubstr(directory));
  }
  container_.working_directory = "/process/self";
  EXPECT_TRUE(Make().ok());
  container_.working_directory.clear();
  image_.working_directory = "/proc/self/fd/9";
  EXPECT_FALSE(Make().ok());
}

// crun does more than the specification says for some: run.oci.* among them, hooks and handlers.
TEST_F(OciConfigTest, Cfg04LabelsAndAnnotationsDoNotTravel) {
  const StringMap reserved = {{"run.oci.handler", "krun"},
                              {"run.oci.hooks.stderr", "/tmp/x"},
                              {"io.katacontainers.config.hypervisor.path", "/bin/sh"},
                              {"io.kubernetes.cri-o.userns-mode", "auto"},
                              {"io.kubernetes.cri.rdt-class", "x"},
                              {"org.systemd.property.X", "1"}};
  const auto before = Make();
  pod_.labels = pod_.annotations = container_.labels = container_.annotations = reserved;
  container_.image_annotations = reserved;
  const auto after = Make();
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_EQ(*before, *after);
  EXPECT_FALSE(Json::parse(*after).contains("annotations"));
}

TEST_F(OciConfigTest, HostNamespacesAreRefusedByTheirFieldsName) {
  container_.security.namespaces.pid = NamespaceMode::kNode;
  EXPECT_EQ(Make().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Make().status().message()), HasSubstr("namespace_options.pid"));
}

TEST_F(OciConfigTest, VolumesAreTheGuestsToAdd) {
  const Json before = Config()["mounts"];
  container_.mounts = {{.container_path = "/data", .host_path = "/srv/data"}};
  EXPECT_EQ(Config()["mounts"], before);
}

TEST_F(OciConfigTest, PathsAreMaskedUnlessTheConfigurationSaysOtherwise) {
  EXPECT_THAT(Config()["linux"]["maskedPaths"], Contains(Json("/proc/kcore")));
  EXPECT_THAT(Config()["linux"]["readonlyPaths"], Contains(Json("/proc/sys")));
  container_.security.masked_paths.emplace();
  container_.security.readonly_paths = {"/proc/fs"};
  EXPECT_TRUE(Config()["linux"]["maskedPaths"].empty());
  EXPECT_EQ(Config()["linux"]["readonlyPaths"], Json({"/proc/fs"}));
}

TEST_F(OciConfigTest, PrivilegedMeansAllOfTheVm) {
  container_.security.privileged = true;
  const Json config = Config();
  EXPECT_THAT(config["process"]["capabilities"]["bounding"], Contains(Json("CAP_SYS_ADMIN")));
  EXPECT_FALSE(config["linux"].contains("maskedPaths"));
  EXPECT_EQ(config["linux"]["resources"]["devices"][0]["allow"], true);
}

TEST_F(OciConfigTest, SeccompAsTheConfigurationSays) {
  EXPECT_FALSE(Config()["linux"].contains("seccomp"));
  container_.security.seccomp.kind = SeccompKind::kRuntimeDefault;
  EXPECT_EQ(Config()["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
  container_.security.privileged = true;
  EXPECT_FALSE(Config()["linux"].contains("seccomp"));
}

TEST_F(OciConfigTest, ALocalhostProfileTravelsWithTheContainer) {
  container_.security.seccomp = {.kind = SeccompKind::kLocalhost, .path = "/srv/mine.json"};
  const std::string text = R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []})";
  const auto made = MakeOciConfig(pod_, "c1", container_, image_, text);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(Json::parse(*made)["linux"]["seccomp"], Json::parse(text));
  const auto broken = MakeOciConfig(pod_, "c1", container_, image_, "{}");
  EXPECT_EQ(broken.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(broken.status().message()), HasSubstr("seccomp: /srv/mine.json: profile.defaultAction"));
}

TEST_F(OciConfigTest, UnprivilegedContainersReachNoDisk) {
  const Json config = Config();
  EXPECT_EQ(config["linux"]["resources"]["devices"][0]["allow"], false);
  EXPECT_THAT(config["process"]["capabilities"]["bounding"], Not(Contains(Json("CAP_SYS_ADMIN"))));
  EXPECT_FALSE(config["process"]["capabilities"].contains("ambient"));
}

TEST_F(OciConfigTest, AmbientCapabilitiesAreInheritableToo) {
  container_.security.drop_capabilities = {"ALL"};
  container_.security.add_ambient_capabilities = {"NET_ADMIN"};
  const Json capabilities = Config()["process"]["capabilities"];
  for (const char* set : {"bounding", "effective", "permitted", "inheritable", "ambient"}) {
    EXPECT_EQ(capabilities[set], Json({"CAP_NET_ADMIN"})) << set;
  }
}

TEST_F(OciConfigTest, LimitsGoToTheGuestsCgroup) {
  container_.resources = {.cpu_period = 100000, .cpu_quota = 50000, .cpu_shares = 512, .memory_limit_bytes = 1 << 26};
  container_.resources.unified = {{"memory.high", "1000"}};
  const Json config = Config();
  EXPECT_EQ(config["linux"]["cgroupsPath"], "/husk/c1");
  EXPECT_EQ(config["linux"]["resources"]["cpu"], Json({{"shares", 512}, {"quota", 50000}, {"period", 100000}}));
  EXPECT_EQ(config["linux"]["resources"]["memory"], Json({{"limit", 1 << 26}}));
  EXPECT_EQ(config["linux"]["resources"]["unified"], Json({{"memory.high", "1000"}}));
  EXPECT_EQ(config["process"]["oomScoreAdj"], 0);
}

TEST_F(OciConfigTest, AChangeOfLimitsNamesNoDevices) {
  const LinuxResources limits{.cpu_quota = -1, .oom_score_adjustment = 7, .memory_swap_limit_bytes = -1};
  // crun takes a lifted quota only together with a period.
  EXPECT_EQ(Json::parse(MakeOciResources(limits)),
            Json::parse(R"({"cpu":{"quota":-1,"period":100000},"memory":{"swap":-1}})"));
  EXPECT_EQ(MakeOciResources({}), "{}");
  LinuxResources pages;
  pages.hugepage_limits = {{"2MB", 4194304}, {"1GB", 0}};
  EXPECT_EQ(MakeOciResources(pages),
            R"({"hugepageLimits":[{"limit":0,"pageSize":"1GB"},{"limit":4194304,"pageSize":"2MB"}]})");
  container_.resources = limits;
  EXPECT_EQ(Config()["process"]["oomScoreAdj"], 7);
}

}  // namespace
}  // namespace husk::sandbox
