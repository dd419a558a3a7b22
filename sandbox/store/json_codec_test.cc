#include "sandbox/store/json_codec.h"

#include <gtest/gtest.h>

#include <string>

namespace husk::sandbox {
namespace {

TEST(JsonCodecTest, APodComesBackAsItWas) {
  PodConfig config;
  config.metadata = {.name = "web", .uid = "u-1", .kubernetes_namespace = "default", .attempt = 7};
  config.hostname = "web-0";
  config.dns.servers = {"10.0.0.10"};
  config.dns.options = {"ndots:5"};
  config.port_mappings = {
      {.protocol = Protocol::kUdp, .container_port = 53, .host_port = 5353, .host_ip = "127.0.0.1"}};
  config.labels = {{"app", "web"}, {"", "empty key"}, {"hex", "not a marker"}};
  config.annotations = {{"note", "line\nbreak \"quoted\" \xc3\xa4"}};
  config.namespaces.pid = NamespaceMode::kTarget;
  config.privileged = true;
  config.resources.cpu_quota = 150000;
  config.resources.hugepage_limits = {{"2MB", std::uint64_t{1} << 40}, {"1GB", 0}};
  config.overhead.memory_limit_bytes = std::int64_t{1} << 40;
  config.vm_choices = {.default_vcpus = 2,
                       .unlimited_vcpus = 0,
                       .default_memory_bytes = std::uint64_t{1} << 30,
                       .unlimited_memory_bytes = std::nullopt,
                       .scratch_bytes = std::nullopt};
  const std::string text = ToJson(config);
  const auto back = PodConfigFromJson(text);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(ToJson(*back), text);
  EXPECT_EQ(back->metadata.attempt, 7U);
  EXPECT_EQ(back->labels, config.labels);
  EXPECT_EQ(back->annotations, config.annotations);
  EXPECT_EQ(back->port_mappings.at(0).protocol, Protocol::kUdp);
  EXPECT_EQ(back->namespaces.pid, NamespaceMode::kTarget);
  EXPECT_TRUE(back->privileged);
  EXPECT_EQ(back->vm_choices, config.vm_choices);
}

TEST(JsonCodecTest, EnvironmentValuesAreBytesInOrder) {
  ContainerConfig config;
  config.environment = {{"B", "\xff\xfe\x80"}, {"A", std::string("nul\0in", 6)}, {"B", ""}};
  config.arguments = {"", "\xc0", "plain"};
  const auto back = ContainerConfigFromJson(ToJson(config));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->environment, config.environment);
  EXPECT_EQ(back->arguments, config.arguments);
}

TEST(JsonCodecTest, AbsentAndEmptyAreNotTheSame) {
  ContainerConfig config;
  config.security.masked_paths.emplace();
  config.security.user.uid = 0;
  const auto back = ContainerConfigFromJson(ToJson(config));
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_TRUE(back->security.masked_paths.has_value());
  EXPECT_TRUE(back->security.masked_paths->empty());
  EXPECT_FALSE(back->security.readonly_paths.has_value());
  EXPECT_EQ(back->security.user.uid, 0);
  EXPECT_FALSE(back->security.user.gid.has_value());
}

TEST(JsonCodecTest, ANetworkComesBack) {
  NetworkResult network;
  network.interfaces = {
      {.name = "eth0",
       .mac_address = "02:00:00:00:00:01",
       .mtu = 1500,
       .addresses = {"10.88.0.2/16", "fd00::2/64"},
       .routes = {{.destination = "0.0.0.0/0", .gateway = "10.88.0.1", .metric = 7, .source = "10.88.0.2"}},
       .neighbours = {{.address = "10.88.0.1", .mac_address = "02:00:00:00:00:02"}}}};
  network.cni_result_json = "{\"cniVersion\":\"1.0.0\"}";
  const auto back = NetworkResultFromJson(ToJson(network));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(ToJson(*back), ToJson(network));
  EXPECT_EQ(back->interfaces.at(0).routes.at(0).gateway, "10.88.0.1");
  EXPECT_EQ(back->interfaces.at(0).routes.at(0).metric, 7U);
  EXPECT_EQ(back->interfaces.at(0).neighbours.at(0).mac_address, "02:00:00:00:00:02");
}

TEST(JsonCodecTest, UnknownAndMissingFieldsAreFine) {
  const auto config = PodConfigFromJson(R"({"hostname":"h","from_the_future":[1,{}]})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hostname, "h");
}

TEST(JsonCodecTest, GarbageIsDataLoss) {
  for (const char* text : {"", "{", "[]", "null", R"({"hostname":7})", R"({"labels":[["only a key"]]})"}) {
    EXPECT_EQ(PodConfigFromJson(text).status().code(), absl::StatusCode::kDataLoss) << text;
  }
}

}  // namespace
}  // namespace husk::sandbox
