// The whole of Network against plugins that a test writes: shell scripts that work, hang, crash or lie.
#include "sandbox/network/cni_network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX's

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stop_token>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "sandbox/network/json.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

Context Soon() {
  return Context::Background().WithTimeout(std::chrono::seconds(120));
}

// What a plugin does at ADD. A link of a kind that every kernel has stands for the real one.
constexpr char kWorks[] = R"(
nsenter --net="$CNI_NETNS" ip link add "$CNI_IFNAME" mtu 1400 type bridge
nsenter --net="$CNI_NETNS" ip link set "$CNI_IFNAME" up
nsenter --net="$CNI_NETNS" ip route add 203.0.113.0/24 dev "$CNI_IFNAME"
echo "{\"cniVersion\": \"1.0.0\", \"interfaces\": [{\"name\": \"$CNI_IFNAME\", \"sandbox\": \"$CNI_NETNS\"}],
  \"ips\": [{\"address\": \"10.213.1.2/24\", \"gateway\": \"10.213.1.1\", \"interface\": 0}],
  \"routes\": [{\"dst\": \"0.0.0.0/0\"}]}"
)";
constexpr char kPassesOn[] = R"(echo "$INPUT" | jq .prevResult)";

class FakePlugins : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/husk-network-XXXXXX";
    root_ = fs::canonical(mkdtemp(name.data())).string();
    fs::create_directories(root_ + "/bin");
    fs::create_directories(root_ + "/net.d");
    options_.configuration_directory = root_ + "/net.d";
    options_.plugin_directories = {root_ + "/nowhere", root_ + "/bin"};
    options_.namespace_directory = root_ + "/netns";
    options_.cache_directory = root_ + "/cache";
    options_.default_bridge = "";
    auto network = NewCniNetwork(options_);
    ASSERT_TRUE(network.ok()) << network.status();
    network_ = std::move(*network);
    request_.pod_id = "pod1";
    request_.name = "web";
    request_.kubernetes_namespace = "default";
    request_.uid = "uid1";
  }
  void TearDown() override {
    EXPECT_TRUE(network_->RemoveNamespace(Soon(), "pod1").ok());
    fs::remove_all(root_);
  }

  // The plugin notes each call as a line "TYPE COMMAND" and keeps its input and environment.
  void Plugin(const std::string& type, const std::string& add, const std::string& del = "") {
    const std::string path = root_ + "/bin/" + type;
    std::ofstream(path) << absl::StrReplaceAll(R"(#!/bin/sh
INPUT=$(cat)
echo "TYPE $CNI_COMMAND" >> ROOT/calls
echo "$INPUT" > ROOT/TYPE.$CNI_COMMAND.json
env > ROOT/TYPE.$CNI_COMMAND.env
case $CNI_COMMAND in
ADD) ADDING ;;
DEL) : ; DELETING ;;
esac
)",
                                               {{"TYPE", type}, {"ROOT", root_}, {"ADDING", add}, {"DELETING", del}});
    fs::permissions(path, fs::perms::owner_all);
  }
  void Configure(const std::string& plugins, const std::string& version = "1.0.0") {
    std::ofstream(root_ + "/net.d/10.conflist")
        << R"({"cniVersion": ")" << version << R"(", "name": "net", "plugins": [)" << plugins << "]}";
  }
  StatusOr<NetworkResult> Attach(const Context& context = Soon()) {
    HUSK_RETURN_IF_ERROR(network_->CreateNamespace(context, "pod1"));
    return network_->Attach(context, request_);
  }
  [[nodiscard]] std::string Text(const std::string& file) const {
    std::ifstream stream(root_ + "/" + file);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  [[nodiscard]] nlohmann::json Input(const std::string& call) const { return *ParseJsonObject(Text(call + ".json")); }
  [[nodiscard]] std::vector<std::string> Calls() const {
    return absl::StrSplit(Text("calls"), '\n', absl::SkipEmpty());
  }
  [[nodiscard]] bool Remembered() const { return fs::exists(root_ + "/cache/attachments/pod1.json"); }

  std::string root_;
  CniOptions options_;
  NetworkRequest request_;
  std::unique_ptr<sandbox::Network> network_;
};

TEST_F(FakePlugins, TheChainRunsForthAndBack) {
  Plugin("first", kWorks);
  Plugin("second", kPassesOn);
  Configure(R"({"type": "first", "own": {"key": [1]}},
               {"type": "second", "capabilities": {"portMappings": true, "bandwidth": true}})");
  request_.port_mappings = {{Protocol::kTcp, 80, 8080, "127.0.0.1"}};
  ASSERT_TRUE(network_->Ready().ok()) << network_->Ready();
  const auto result = Attach();
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->interfaces.size(), 1U);
  EXPECT_EQ(result->interfaces[0].name, "eth0");
  EXPECT_EQ(result->interfaces[0].mtu, 1400U) << "read from the link";
  EXPECT_EQ(result->interfaces[0].mac_address.size(), 17U) << "read from the link";
  ASSERT_EQ(result->interfaces[0].routes.size(), 2U) << "one from the result, one that only the kernel knows";
  EXPECT_EQ(result->interfaces[0].routes[0].destination, "203.0.113.0/24");
  EXPECT_EQ(result->interfaces[0].routes[1].gateway, "10.213.1.1");

  EXPECT_EQ(Input("first.ADD")["name"], "net");
  EXPECT_EQ(Input("first.ADD")["cniVersion"], "1.0.0");
  EXPECT_EQ(Input("first.ADD")["own"]["key"][0], 1);
  EXPECT_FALSE(Input("first.ADD").contains("prevResult"));
  EXPECT_FALSE(Input("first.ADD").contains("runtimeConfig"));
  EXPECT_EQ(Input("second.ADD")["prevResult"]["ips"][0]["address"], "10.213.1.2/24");
  EXPECT_EQ(Input("second.ADD")["runtimeConfig"]["portMappings"][0]["hostPort"], 8080);
  EXPECT_FALSE(Input("second.ADD")["runtimeConfig"].contains("bandwidth"));
  const std::string environment = Text("first.ADD.env");
  for (const std::string& variable :
       {std::string("CNI_CONTAINERID=pod1\n"), std::string("CNI_IFNAME=eth0\n"),
        absl::StrCat("CNI_NETNS=", network_->NamespacePath("pod1"), "\n"),
        absl::StrCat("CNI_PATH=", root_, "/nowhere:", root_, "/bin\n"), std::string("K8S_POD_NAME=web;")}) {
    EXPECT_THAT(environment, HasSubstr(variable));
  }

  EXPECT_TRUE(network_->Detach(Soon(), request_).ok());
  EXPECT_THAT(Calls(), ElementsAre("first ADD", "second ADD", "second DEL", "first DEL"));
  EXPECT_EQ(Input("first.DEL")["prevResult"]["ips"][0]["address"], "10.213.1.2/24");
  EXPECT_EQ(Input("second.DEL")["runtimeConfig"]["portMappings"][0]["hostPort"], 8080);
  EXPECT_FALSE(Remembered());
  EXPECT_TRUE(network_->Detach(Soon(), request_).ok()) << "nothing is attached";
  EXPECT_EQ(Calls().size(), 4U);
}

TEST_F(FakePlugins, DelWithoutTheNamespaceSaysSoAndOldVersionsGetNoResult) {
  Plugin("first", kWorks);
  Configure(R"({"type": "first"})", "0.3.1");
  ASSERT_TRUE(Attach().ok());
  EXPECT_TRUE(network_->RemoveNamespace(Soon(), "pod1").ok());
  EXPECT_THAT(*network_->ExistingNamespaces(), ElementsAre("pod1")) << "CNI may still hold its address";
  EXPECT_TRUE(network_->Detach(Soon(), request_).ok());
  EXPECT_THAT(Text("first.DEL.env"), HasSubstr("CNI_NETNS=\n"));
  EXPECT_FALSE(Input("first.DEL").contains("prevResult"));
  EXPECT_TRUE(network_->ExistingNamespaces()->empty());
}

TEST_F(FakePlugins, AFailureNamesThePluginTheFileAndItsReasonAndIsUndone) {
  Plugin("first", kWorks);
  Plugin("second", R"(echo '{"code": 11, "msg": "no address left", "details": "pool 7"}'; exit 1)");
  Configure(R"({"type": "first"}, {"type": "second"})");
  const auto result = Attach();
  EXPECT_THAT(result.status().message(), HasSubstr("plugin second"));
  EXPECT_THAT(result.status().message(), HasSubstr("10.conflist"));
  EXPECT_THAT(result.status().message(), HasSubstr("no address left: pool 7"));
  EXPECT_THAT(Calls(), ElementsAre("first ADD", "second ADD", "second DEL", "first DEL"));
  EXPECT_FALSE(Remembered());
}

TEST_F(FakePlugins, AnAddThatWorksAndThenCrashesIsUndone) {
  Plugin("first", std::string(kWorks) + "\necho the last words >&2; kill -SEGV $$");
  Configure(R"({"type": "first"})");
  const auto result = Attach();
  EXPECT_THAT(result.status().message(), HasSubstr("exit code 139: the last words"));
  EXPECT_THAT(Calls(), ElementsAre("first ADD", "first DEL"));
  EXPECT_FALSE(Remembered());
}

TEST_F(FakePlugins, GarbageIsAClearError) {
  Configure(R"({"type": "first"})");
  ASSERT_TRUE(network_->CreateNamespace(Soon(), "pod1").ok());
  for (const std::string output : {"", "printf 'not json\\001'", "echo '[]'", "echo '{}'", "yes '[' | head -100000"}) {
    Plugin("first", output.empty() ? ":" : output);
    const Status status = network_->Attach(Soon(), request_).status();
    EXPECT_TRUE(absl::IsInternal(status)) << output << " " << status;
    EXPECT_THAT(status.message(), HasSubstr("10.conflist")) << output;
    EXPECT_FALSE(Remembered());
  }
}

TEST_F(FakePlugins, AFloodOfOutputIsCutOff) {
  Plugin("first", "head -c 67108864 /dev/zero | tr '\\0' '{'");
  Configure(R"({"type": "first"})");
  const Status status = Attach().status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("plugin first"));
}

TEST_F(FakePlugins, AHangEndsWithTheContextAndIsUndone) {
  Plugin("first", "exec sleep 1000");
  Configure(R"({"type": "first"})");
  std::stop_source stop;
  std::jthread stopper([&] {
    while (Calls().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    stop.request_stop();
  });
  const Status status = Attach(Soon().WithStopToken(stop.get_token())).status();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_THAT(Calls(), ElementsAre("first ADD", "first DEL"));
  EXPECT_FALSE(Remembered());
}

TEST_F(FakePlugins, ADelThatFailsIsRememberedAndTheOthersStillRun) {
  Plugin("first", kWorks);
  Plugin("second", kPassesOn, "echo broken >&2; exit 3");
  Configure(R"({"type": "first"}, {"type": "second"})");
  ASSERT_TRUE(Attach().ok());
  for (int i = 0; i < 2; ++i) {
    const Status status = network_->Detach(Soon(), request_);
    EXPECT_THAT(status.message(), HasSubstr("CNI DEL by plugin second"));
    EXPECT_THAT(status.message(), HasSubstr("exit code 3: broken"));
    EXPECT_TRUE(Remembered());
  }
  EXPECT_THAT(Calls(), ElementsAre("first ADD", "second ADD", "second DEL", "first DEL", "second DEL", "first DEL"));
  Plugin("second", kPassesOn);
  EXPECT_TRUE(network_->Detach(Soon(), request_).ok());
  EXPECT_FALSE(Remembered());
}

// The kubelet takes NOT_FOUND at StopPodSandbox for success.
TEST_F(FakePlugins, APluginThatWasTakenAwayIsNoPodThatIsNotThere) {
  Plugin("first", kWorks);
  Configure(R"({"type": "first"})");
  ASSERT_TRUE(Attach().ok());
  fs::remove(root_ + "/bin/first");
  const Status status = network_->Detach(Soon(), request_);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("CNI plugin first is not in"));
  EXPECT_TRUE(Remembered());
  std::ofstream(root_ + "/cache/attachments/pod1.json") << "torn";
  fs::remove(root_ + "/net.d/10.conflist");
  EXPECT_TRUE(absl::IsFailedPrecondition(network_->Detach(Soon(), request_))) << "no configuration to guess from";
  EXPECT_TRUE(Remembered());
}

TEST_F(FakePlugins, WhatAnEarlierProcessLeftIsUndoneBeforeANewAdd) {
  Plugin("first", kWorks, R"(nsenter --net="$CNI_NETNS" ip link del "$CNI_IFNAME")");
  Configure(R"({"type": "first"})");
  ASSERT_TRUE(Attach().ok());
  auto later = NewCniNetwork(options_);
  ASSERT_TRUE(later.ok());
  ASSERT_TRUE((*later)->Attach(Soon(), request_).ok());
  EXPECT_THAT(Calls(), ElementsAre("first ADD", "first DEL", "first ADD"));
}

TEST_F(FakePlugins, ABrokenRecordIsUndoneWithTheConfigurationOfToday) {
  Plugin("first", kWorks);
  Configure(R"({"type": "first"})");
  ASSERT_TRUE(Attach().ok());
  std::ofstream(root_ + "/cache/attachments/pod1.json") << "{";
  EXPECT_TRUE(network_->Detach(Soon(), request_).ok());
  EXPECT_THAT(Calls(), ElementsAre("first ADD", "first DEL"));
  EXPECT_FALSE(Remembered());
}

TEST_F(FakePlugins, AnInterfaceThatIsNotThereIsAnError) {
  Plugin("first", R"(echo '{"ips": [{"address": "10.1.0.2/16"}]}')");
  Configure(R"({"type": "first"})");
  const Status status = Attach().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("interface eth0 of the pod is in the CNI result, but not in the namespace"));
  EXPECT_TRUE(absl::IsNotFound(
      network_->CreateTap(Soon(), "pod1", {.name = "eth0", .mac_address = "02:00:00:00:00:01"}).status()));
}

TEST_F(FakePlugins, ReadyFollowsTheConfigurationAndTheInstalledPlugins) {
  EXPECT_TRUE(absl::IsNotFound(network_->Ready())) << "no configuration, and no default";
  Configure(R"({"type": "first", "ipam": {"type": "addresses"}})");
  EXPECT_THAT(network_->Ready().message(), HasSubstr("CNI plugin first is not in"));
  Plugin("first", ":");
  EXPECT_THAT(network_->Ready().message(), HasSubstr("CNI plugin addresses is not in"));
  Plugin("addresses", ":");
  EXPECT_TRUE(network_->Ready().ok()) << network_->Ready();
  Configure("");
  EXPECT_THAT(network_->Ready().message(), HasSubstr("10.conflist"));
}

TEST_F(FakePlugins, IdsThatAreNoIdsNeverBecomePaths) {
  EXPECT_EQ(network_->NamespacePath("../x"), "");
  EXPECT_TRUE(absl::IsInvalidArgument(network_->CreateNamespace(Soon(), "../x")));
  EXPECT_TRUE(absl::IsInvalidArgument(network_->RemoveNamespace(Soon(), "a/b")));
  EXPECT_TRUE(absl::IsInvalidArgument(network_->CreateTap(Soon(), "", {.name = "eth0"}).status()));
  request_.pod_id = "..";
  EXPECT_TRUE(absl::IsInvalidArgument(network_->Attach(Soon(), request_).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(network_->Detach(Soon(), request_)));
}

TEST(NewCniNetwork, RefusesOptionsThatCannotWork) {
  CniOptions good;
  good.namespace_directory = "/tmp/a";
  good.cache_directory = "/tmp/b";
  EXPECT_TRUE(NewCniNetwork(good).ok());
  CniOptions bad = good;
  bad.namespace_directory = "relative";
  EXPECT_TRUE(absl::IsInvalidArgument(NewCniNetwork(bad).status()));
  bad = good;
  bad.default_subnet = "10.0.0.0/31";
  EXPECT_TRUE(absl::IsInvalidArgument(NewCniNetwork(bad).status()));
  bad = good;
  bad.default_bridge = "much-too-long-for-a-link";
  EXPECT_TRUE(absl::IsInvalidArgument(NewCniNetwork(bad).status()));
  bad.default_bridge = "a/b";
  EXPECT_TRUE(absl::IsInvalidArgument(NewCniNetwork(bad).status()));
}

TEST(RemoveDefaultBridge, DeletesNothingButAnEmptyBridge) {
  CniOptions options;
  options.cache_directory = testing::TempDir() + "/husk-no-such-directory";
  options.default_bridge = "lo";
  EXPECT_TRUE(absl::IsFailedPrecondition(RemoveDefaultBridge(options)));
  options.default_bridge = "husk-none";
  EXPECT_TRUE(RemoveDefaultBridge(options).ok());
}

}  // namespace
}  // namespace husk::sandbox
