#include "sandbox/network/attachment_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX's

#include <filesystem>
#include <fstream>

#include "sandbox/network/json.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;

class Cache : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/attachments-XXXXXX";
    root_ = mkdtemp(name.data());
  }
  void TearDown() override { fs::remove_all(root_); }

  static CniAttachment Example() {
    NetworkRequest request;
    request.pod_id = "pod1";
    request.name = "web";
    request.kubernetes_namespace = "default";
    request.uid = "u";
    request.port_mappings = {{Protocol::kUdp, 53, 5353, "127.0.0.1"}, {Protocol::kTcp, 80, 0, ""}};
    return *NewAttachment(
        request, "/run/netns/pod1",
        *ParseConfigList(R"({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a", "x": {"y": [1]}}]})",
                         "file"));
  }
  std::string root_;
};

TEST_F(Cache, GivesBackWhatWasSaved) {
  const AttachmentCache cache(root_ + "/below/it");
  EXPECT_TRUE(absl::IsNotFound(cache.Load("pod1").status()));
  EXPECT_TRUE(cache.List()->empty());
  CniAttachment attachment = Example();
  ASSERT_TRUE(cache.Save(attachment).ok());
  EXPECT_TRUE(cache.Load("pod1")->result.is_null());
  attachment.result = {{"ips", {1, 2}}};
  ASSERT_TRUE(cache.Save(attachment).ok());

  const auto loaded = cache.Load("pod1");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->container_id, "pod1");
  EXPECT_EQ(loaded->namespace_path, "/run/netns/pod1");
  EXPECT_EQ(loaded->interface_name, "eth0");
  EXPECT_EQ(loaded->arguments,
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=pod1;K8S_POD_UID=u");
  EXPECT_EQ(loaded->network.source, "file");
  EXPECT_EQ(loaded->network.version, "1.0.0");
  EXPECT_EQ(loaded->network.plugins[0].config, attachment.network.plugins[0].config);
  EXPECT_EQ(WriteJson(loaded->capability_arguments),
            R"({"portMappings":[{"containerPort":53,"hostIP":"127.0.0.1","hostPort":5353,"protocol":"udp"}]})");
  EXPECT_EQ(loaded->result, attachment.result);
  EXPECT_THAT(*cache.List(), testing::ElementsAre("pod1"));

  EXPECT_TRUE(cache.Remove("pod1").ok());
  EXPECT_TRUE(cache.Remove("pod1").ok());
  EXPECT_TRUE(fs::is_empty(root_ + "/below/it"));
}

TEST_F(Cache, TellsABrokenFileFromNone) {
  const AttachmentCache cache(root_);
  for (const char* text : {"", "{", "{}", "[1]", R"({"network": {"name": "n"}, "containerId": "pod1"})"}) {
    std::ofstream(root_ + "/pod1.json") << text;
    EXPECT_TRUE(absl::IsDataLoss(cache.Load("pod1").status())) << text;
  }
}

TEST_F(Cache, ALeftoverOfACrashIsNoAttachment) {
  const AttachmentCache cache(root_);
  std::ofstream(root_ + "/pod1.json.unfinished") << "{";
  EXPECT_TRUE(cache.List()->empty());
  EXPECT_TRUE(absl::IsNotFound(cache.Load("pod1").status()));
  EXPECT_TRUE(cache.Remove("pod1").ok());
  EXPECT_TRUE(fs::is_empty(root_));
}

TEST(NewAttachment, RefusesNamesThatWouldBecomeOtherArguments) {
  NetworkRequest request;
  request.pod_id = "pod1";
  request.name = "a;K8S_POD_NAMESPACE=kube-system";
  EXPECT_TRUE(absl::IsInvalidArgument(NewAttachment(request, "/n", {}).status()));
}

}  // namespace
}  // namespace husk::sandbox
