#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "cri/convert/container.h"
#include "cri/convert/image.h"
#include "cri/convert/pod.h"

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;
using testing::HasSubstr;

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

api::PodSandboxConfig WholePod() {
  return Parse<api::PodSandboxConfig>(R"(
    metadata { name: "web" uid: "u-1" namespace: "shop" attempt: 3 }
    hostname: "web-0"
    log_directory: "/var/log/pods/web"
    dns_config { servers: "10.0.0.1" searches: "a.b" searches: "c" options: "ndots:5" }
    port_mappings { protocol: UDP container_port: 53 host_port: 5353 host_ip: "127.0.0.1" }
    port_mappings { container_port: 80 }
    labels { key: "l" value: "\n\t \"x\" \303\266" }
    annotations { key: "a" value: "{\"json\": [1, 2]}" }
    annotations { key: "empty" value: "" }
    linux {
      cgroup_parent: "/kubepods/pod1"
      sysctls { key: "net.core.somaxconn" value: "1024" }
      security_context {
        privileged: true
        namespace_options { network: NODE pid: CONTAINER ipc: POD }
        seccomp { profile_type: RuntimeDefault }
      }
      overhead { memory_limit_in_bytes: 1000000 }
      resources { cpu_period: 100000 cpu_quota: 50000 cpu_shares: 512 memory_limit_in_bytes: 2000000 }
    })");
}

api::ContainerConfig WholeContainer() {
  return Parse<api::ContainerConfig>(R"(
    metadata { name: "app" attempt: 2 }
    image { image: "sha256:1234" user_specified_image: "host/app:1" annotations { key: "i" value: "j" } }
    command: "/bin/app" command: ""
    args: "--x" args: "two words"
    working_dir: "/srv"
    envs { key: "B" value: "line1\nline2" } envs { key: "A" value: "" } envs { key: "B" value: "again" }
    mounts { container_path: "/data" host_path: "/host" readonly: true recursive_read_only: true }
    labels { key: "io.kubernetes.container.name" value: "app" }
    annotations { key: "hash" value: "abc" }
    log_path: "app/2.log"
    stdin: true stdin_once: true tty: true
    linux {
      resources {
        cpu_period: 100000 cpu_quota: 20000 cpu_shares: 204 memory_limit_in_bytes: 1048576 oom_score_adj: -997
        cpuset_cpus: "0-1" cpuset_mems: "0" memory_swap_limit_in_bytes: 2097152
        unified { key: "memory.high" value: "1000000" }
        hugepage_limits { page_size: "2Mi" limit: 0 }
      }
      security_context {
        capabilities { add_capabilities: "NET_ADMIN" drop_capabilities: "ALL" add_ambient_capabilities: "NET_RAW" }
        namespace_options { pid: TARGET target_id: "t" }
        run_as_user { value: 1000 } run_as_group { value: 2000 } supplemental_groups: 5
        readonly_rootfs: true no_new_privs: true masked_paths: "/proc/kcore" readonly_paths: "/proc/sys"
      }
    }
    stop_signal: CRI_SIGUSR1)");
}

TEST(ConvertPod, EveryFieldArrives) {
  const StatusOr<sandbox::PodConfig> pod = PodConfigFromProto(WholePod(), "husk");
  ASSERT_TRUE(pod.ok()) << pod.status();
  EXPECT_EQ(pod->metadata.name, "web");
  EXPECT_EQ(pod->metadata.uid, "u-1");
  EXPECT_EQ(pod->metadata.kubernetes_namespace, "shop");
  EXPECT_EQ(pod->metadata.attempt, 3U);
  EXPECT_EQ(pod->hostname, "web-0");
  EXPECT_EQ(pod->log_directory, "/var/log/pods/web");
  EXPECT_THAT(pod->dns.servers, testing::ElementsAre("10.0.0.1"));
  EXPECT_THAT(pod->dns.searches, testing::ElementsAre("a.b", "c"));
  EXPECT_THAT(pod->dns.options, testing::ElementsAre("ndots:5"));
  ASSERT_EQ(pod->port_mappings.size(), 2U);
  EXPECT_EQ(pod->port_mappings[0].protocol, sandbox::Protocol::kUdp);
  EXPECT_EQ(pod->port_mappings[0].container_port, 53);
  EXPECT_EQ(pod->port_mappings[0].host_port, 5353);
  EXPECT_EQ(pod->port_mappings[0].host_ip, "127.0.0.1");
  EXPECT_EQ(pod->port_mappings[1].protocol, sandbox::Protocol::kTcp);
  EXPECT_EQ(pod->cgroup_parent, "/kubepods/pod1");
  EXPECT_EQ(pod->sysctls.at("net.core.somaxconn"), "1024");
  EXPECT_EQ(pod->namespaces.network, sandbox::NamespaceMode::kNode);
  EXPECT_EQ(pod->namespaces.pid, sandbox::NamespaceMode::kContainer);
  EXPECT_TRUE(pod->privileged);
  EXPECT_EQ(pod->overhead.memory_limit_bytes, 1000000);
  EXPECT_EQ(pod->resources.cpu_quota, 50000);
  EXPECT_EQ(pod->runtime_handler, "husk");
}

TEST(ConvertPod, StatusGivesBackWhatWasGiven) {
  const api::PodSandboxConfig config = WholePod();
  sandbox::PodStatus status;
  status.id = "id1";
  status.config = *PodConfigFromProto(config, "husk");
  status.state = sandbox::PodState::kReady;
  status.created_at = 77;
  status.addresses = {"10.1.2.3", "fd00::3", "fd00::4"};
  api::PodSandboxStatus out;
  PodStatusToProto(status, &out);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(out.metadata(), config.metadata()));
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(
      out.linux().namespaces().options(), config.linux().security_context().namespace_options()));
  EXPECT_EQ(out.labels().at("l"), config.labels().at("l"));
  EXPECT_EQ(out.annotations_size(), 2);
  EXPECT_EQ(out.annotations().at("a"), config.annotations().at("a"));
  EXPECT_EQ(out.state(), api::SANDBOX_READY);
  EXPECT_EQ(out.created_at(), 77);
  EXPECT_EQ(out.network().ip(), "10.1.2.3");
  ASSERT_EQ(out.network().additional_ips_size(), 2);
  EXPECT_EQ(out.network().additional_ips(1).ip(), "fd00::4");
  EXPECT_EQ(out.runtime_handler(), "husk");

  api::PodSandbox item;
  status.state = sandbox::PodState::kNotReady;
  PodToProto(status, &item);
  EXPECT_EQ(item.id(), "id1");
  EXPECT_EQ(item.state(), api::SANDBOX_NOTREADY);
  EXPECT_EQ(item.labels().at("l"), config.labels().at("l"));
}

struct BadPod {
  const char* field;
  std::function<void(api::PodSandboxConfig*)> change;
};

TEST(ConvertPod, WhatCannotBeHonouredIsRefusedByName) {
  const BadPod cases[] = {
      {"config.metadata.name", [](auto* c) { c->mutable_metadata()->clear_name(); }},
      {"config.metadata.uid", [](auto* c) { c->mutable_metadata()->set_uid("a/b"); }},
      {"config.metadata.namespace", [](auto* c) { c->mutable_metadata()->set_namespace_(std::string("a\0b", 3)); }},
      {"config.metadata.name", [](auto* c) { c->mutable_metadata()->set_name(std::string(4096, 'x')); }},
      {"config.hostname", [](auto* c) { c->set_hostname("a\nb"); }},
      {"config.log_directory", [](auto* c) { c->set_log_directory("logs"); }},
      {"config.windows", [](auto* c) { c->mutable_windows(); }},
      {"config.port_mappings[1].host_port", [](auto* c) { c->mutable_port_mappings(1)->set_host_port(65536); }},
      {"config.port_mappings[0].container_port", [](auto* c) { c->mutable_port_mappings(0)->set_container_port(-1); }},
      {"config.linux.security_context.selinux_options",
       [](auto* c) { c->mutable_linux()->mutable_security_context()->mutable_selinux_options()->set_type("t"); }},
      {"config.linux.security_context.apparmor",
       [](auto* c) {
         c->mutable_linux()->mutable_security_context()->mutable_apparmor()->set_profile_type(
             api::SecurityProfile::Localhost);
       }},
      {"config.linux.security_context.namespace_options.userns_options",
       [](auto* c) {
         c->mutable_linux()->mutable_security_context()->mutable_namespace_options()->mutable_userns_options();
       }},
      {"config.linux.resources.memory_limit_in_bytes",
       [](auto* c) { c->mutable_linux()->mutable_resources()->set_memory_limit_in_bytes(-5); }},
  };
  for (const BadPod& bad : cases) {
    api::PodSandboxConfig config = WholePod();
    bad.change(&config);
    const StatusOr<sandbox::PodConfig> pod = PodConfigFromProto(config, "");
    ASSERT_FALSE(pod.ok()) << bad.field;
    EXPECT_THAT(std::string(pod.status().message()), testing::StartsWith(std::string(bad.field) + ":"));
  }
}

TEST(ConvertContainer, EveryFieldArrives) {
  const StatusOr<sandbox::ContainerConfig> config = ContainerConfigFromProto(WholeContainer());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->metadata.name, "app");
  EXPECT_EQ(config->metadata.attempt, 2U);
  EXPECT_EQ(config->image, "sha256:1234");
  EXPECT_EQ(config->user_image, "host/app:1");
  EXPECT_EQ(config->image_annotations.at("i"), "j");
  EXPECT_THAT(config->command, testing::ElementsAre("/bin/app", ""));
  EXPECT_THAT(config->arguments, testing::ElementsAre("--x", "two words"));
  EXPECT_EQ(config->working_directory, "/srv");
  EXPECT_THAT(config->environment, testing::ElementsAre(testing::Pair("B", "line1\nline2"), testing::Pair("A", ""),
                                                        testing::Pair("B", "again")));
  ASSERT_EQ(config->mounts.size(), 1U);
  EXPECT_EQ(config->mounts[0].container_path, "/data");
  EXPECT_EQ(config->mounts[0].host_path, "/host");
  EXPECT_TRUE(config->mounts[0].read_only);
  EXPECT_EQ(config->log_path, "app/2.log");
  EXPECT_TRUE(config->stdin && config->stdin_once && config->tty);
  EXPECT_EQ(config->resources.oom_score_adjustment, -997);
  EXPECT_EQ(config->resources.cpuset_cpus, "0-1");
  EXPECT_EQ(config->resources.unified.at("memory.high"), "1000000");
  EXPECT_EQ(config->resources.memory_swap_limit_bytes, 2097152);
  EXPECT_THAT(config->security.add_capabilities, testing::ElementsAre("NET_ADMIN"));
  EXPECT_THAT(config->security.drop_capabilities, testing::ElementsAre("ALL"));
  EXPECT_THAT(config->security.add_ambient_capabilities, testing::ElementsAre("NET_RAW"));
  EXPECT_EQ(config->security.namespaces.pid, sandbox::NamespaceMode::kTarget);
  EXPECT_EQ(config->security.namespaces.target_container_id, "t");
  EXPECT_EQ(config->security.user.uid, 1000);
  EXPECT_EQ(config->security.user.gid, 2000);
  EXPECT_THAT(config->security.user.supplemental_gids, testing::ElementsAre(5U));
  EXPECT_TRUE(config->security.readonly_root && config->security.no_new_privileges);
  EXPECT_THAT(*config->security.masked_paths, testing::ElementsAre("/proc/kcore"));
  EXPECT_THAT(*config->security.readonly_paths, testing::ElementsAre("/proc/sys"));
  EXPECT_EQ(config->stop_signal, "SIGUSR1");
}

TEST(ConvertContainer, ErrorsArePrintableWhateverTheCallerWrote) {
  const auto container = ContainerConfigFromProto(Parse<api::ContainerConfig>(R"(
    metadata { name: "c" } image { image: "i" } envs { key: "=\033[31m\177\303\274" })"));
  EXPECT_TRUE(absl::IsInvalidArgument(container.status()));
  EXPECT_THAT(std::string(container.status().message()), HasSubstr(R"("=\x1b[31m\x7f\xc3\xbc" is no name)"));
}

TEST(ConvertContainer, PathsAreMaskedByDefaultOnlyWithoutASecurityContext) {
  api::ContainerConfig config = WholeContainer();
  config.mutable_linux()->clear_security_context();
  EXPECT_FALSE(ContainerConfigFromProto(config)->security.masked_paths.has_value());
  config.mutable_linux()->mutable_security_context();
  ASSERT_TRUE(ContainerConfigFromProto(config)->security.masked_paths.has_value());
  EXPECT_TRUE(ContainerConfigFromProto(config)->security.masked_paths->empty());
}

TEST(ConvertContainer, StatusGivesBackWhatWasGiven) {
  const api::ContainerConfig config = WholeContainer();
  sandbox::ContainerStatus status;
  status.id = "c1";
  status.pod_id = "p1";
  status.config = *ContainerConfigFromProto(config);
  status.state = sandbox::ContainerState::kExited;
  status.created_at = 1;
  status.started_at = 2;
  status.finished_at = 3;
  status.exit_code = 137;
  status.reason = "Error";
  status.message = "killed";
  status.image_id = "sha256:1234";
  status.image_reference = "host/app@sha256:99";
  status.log_path = "/var/log/pods/web/app/2.log";
  api::ContainerStatus out;
  ContainerStatusToProto(status, &out);
  EXPECT_EQ(out.state(), api::CONTAINER_EXITED);
  EXPECT_EQ(out.created_at(), 1);
  EXPECT_EQ(out.started_at(), 2);
  EXPECT_EQ(out.finished_at(), 3);
  EXPECT_EQ(out.exit_code(), 137);
  EXPECT_EQ(out.reason(), "Error");
  EXPECT_EQ(out.message(), "killed");
  EXPECT_EQ(out.image().image(), "host/app:1");
  EXPECT_EQ(out.image_ref(), "host/app@sha256:99");
  EXPECT_EQ(out.image_id(), "sha256:1234");
  EXPECT_EQ(out.log_path(), "/var/log/pods/web/app/2.log");
  EXPECT_EQ(out.stop_signal(), config.stop_signal());
  EXPECT_EQ(out.annotations().at("hash"), "abc");
  EXPECT_EQ(out.mounts(0).host_path(), "/host");
  EXPECT_TRUE(out.mounts(0).recursive_read_only());
  api::LinuxContainerResources resources = config.linux().resources();
  resources.mutable_hugepage_limits(0)->set_page_size("2MB");  // as the kernel says it
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(out.resources().linux(), resources));

  status.image_reference.clear();
  status.config.user_image.clear();
  api::Container item;
  ContainerToProto(status, &item);
  EXPECT_EQ(item.pod_sandbox_id(), "p1");
  EXPECT_EQ(item.image().image(), "sha256:1234");
  EXPECT_EQ(item.image_ref(), "sha256:1234");
  EXPECT_EQ(item.labels().at("io.kubernetes.container.name"), "app");
}

struct BadContainer {
  const char* field;
  std::function<void(api::ContainerConfig*)> change;
};

TEST(ConvertContainer, WhatCannotBeHonouredIsRefusedByName) {
  const auto security = [](api::ContainerConfig* c) { return c->mutable_linux()->mutable_security_context(); };
  const BadContainer cases[] = {
      {"config.metadata.name", [](auto* c) { c->clear_metadata(); }},
      {"config.image.image", [](auto* c) { c->clear_image(); }},
      {"config.windows", [](auto* c) { c->mutable_windows(); }},
      {"config.devices[0].container_path", [](auto* c) { c->add_devices()->set_host_path("/dev/null"); }},
      {"config.devices[0].host_path", [](auto* c) { c->add_devices()->set_container_path("/dev/null"); }},
      {"config.devices[0].permissions",
       [](auto* c) { *c->add_devices() = Parse<api::Device>(R"(container_path: "/a" host_path: "/b")"); }},
      {"config.envs", [](auto* c) { c->add_envs()->set_key("A=B"); }},
      {"config.envs", [](auto* c) { c->add_envs()->set_value("no name"); }},
      {"config.mounts[0].container_path", [](auto* c) { c->mutable_mounts(0)->clear_container_path(); }},
      {"config.mounts[0].image.image", [](auto* c) { c->mutable_mounts(0)->mutable_image(); }},
      {"config.mounts[0].host_path", [](auto* c) { c->mutable_mounts(0)->mutable_image()->set_image("i"); }},
      {"config.mounts[0].image_sub_path", [](auto* c) { c->mutable_mounts(0)->set_image_sub_path("a"); }},
      {"config.mounts[0].propagation",
       [](auto* c) { c->mutable_mounts(0)->set_propagation(api::PROPAGATION_BIDIRECTIONAL); }},
      {"config.mounts[0].propagation",
       [](auto* c) { c->mutable_mounts(0)->set_propagation(static_cast<api::MountPropagation>(9)); }},
      {"config.mounts[0].recursive_read_only", [](auto* c) { c->mutable_mounts(0)->set_readonly(false); }},
      {"config.linux.security_context.run_as_group", [&](auto* c) { security(c)->clear_run_as_user(); }},
      {"config.linux.security_context.run_as_username", [&](auto* c) { security(c)->set_run_as_username("bob"); }},
      {"config.linux.security_context.run_as_user",
       [&](auto* c) { security(c)->mutable_run_as_user()->set_value(std::int64_t{1} << 31); }},
      {"config.linux.security_context.supplemental_groups", [&](auto* c) { security(c)->add_supplemental_groups(-1); }},
      {"config.linux.resources.hugepage_limits[2Mi]",
       [](auto* c) { c->mutable_linux()->mutable_resources()->mutable_hugepage_limits(0)->set_limit(4); }},
      {"config.stop_signal", [](auto* c) { c->set_stop_signal(static_cast<api::Signal>(999)); }},
  };
  for (const BadContainer& bad : cases) {
    api::ContainerConfig config = WholeContainer();
    bad.change(&config);
    const StatusOr<sandbox::ContainerConfig> converted = ContainerConfigFromProto(config);
    ASSERT_FALSE(converted.ok()) << bad.field;
    EXPECT_THAT(std::string(converted.status().message()), testing::StartsWith(std::string(bad.field) + ":"));
  }
}

TEST(ConvertContainer, DevicesAndMountsOfImages) {
  api::ContainerConfig config = WholeContainer();
  *config.add_devices() = Parse<api::Device>(R"(container_path: "/dev/xvda" host_path: "/dev/sdb" permissions: "r")");
  config.add_cdi_devices()->set_name("vendor.com/gpu=0");
  config.clear_mounts();
  *config.add_mounts() =
      Parse<api::Mount>(R"(container_path: "/model" image { image: "sha256:1" } image_sub_path: "a/b" readonly: true)");
  const auto converted = ContainerConfigFromProto(config);
  ASSERT_TRUE(converted.ok()) << converted.status();
  ASSERT_EQ(converted->devices.size(), 1U);
  EXPECT_EQ(converted->devices[0].container_path, "/dev/xvda");
  EXPECT_EQ(converted->devices[0].host_path, "/dev/sdb");
  EXPECT_EQ(converted->devices[0].permissions, "r");
  EXPECT_EQ(converted->cdi_devices, std::vector<std::string>{"vendor.com/gpu=0"});
  ASSERT_EQ(converted->mounts.size(), 1U);
  EXPECT_EQ(converted->mounts[0].image, "sha256:1");
  EXPECT_EQ(converted->mounts[0].image_sub_path, "a/b");
  EXPECT_TRUE(converted->mounts[0].read_only);

  sandbox::ContainerStatus status{.id = "c", .pod_id = "p", .config = *converted};
  status.config.mounts.push_back({.container_path = "/cdi", .host_path = "/opt", .of_device = true});
  api::ContainerStatus out;
  ContainerStatusToProto(status, &out);
  ASSERT_EQ(out.mounts_size(), 1);
  EXPECT_EQ(out.mounts(0).image().image(), "sha256:1");
  EXPECT_EQ(out.mounts(0).image_sub_path(), "a/b");
  EXPECT_TRUE(out.mounts(0).readonly());
}

TEST(ConvertContainer, MountsOfTheHostMayFollow) {
  api::ContainerConfig config = WholeContainer();
  for (const auto propagation : {api::PROPAGATION_PRIVATE, api::PROPAGATION_HOST_TO_CONTAINER}) {
    config.mutable_mounts(0)->set_propagation(propagation);
    const auto converted = ContainerConfigFromProto(config);
    ASSERT_TRUE(converted.ok()) << converted.status();
    EXPECT_EQ(converted->mounts[0].follow_mounts, propagation == api::PROPAGATION_HOST_TO_CONTAINER);
    api::ContainerStatus out;
    ContainerStatusToProto({.id = "c", .pod_id = "p", .config = *converted}, &out);
    EXPECT_EQ(out.mounts(0).propagation(), propagation);
  }
}

TEST(ConvertContainer, SignalsGoBothWays) {
  for (int value = api::Signal_MIN; value <= api::Signal_MAX; ++value) {
    const auto signal = static_cast<api::Signal>(value);
    EXPECT_EQ(SignalFromName(SignalName(signal)), signal) << SignalName(signal);
  }
  EXPECT_EQ(SignalName(static_cast<api::Signal>(38)), "SIGRTMIN+3");
  EXPECT_EQ(SignalName(static_cast<api::Signal>(51)), "SIGRTMAX-14");
  EXPECT_EQ(SignalFromName("nonsense"), api::RUNTIME_DEFAULT);
}

TEST(ConvertFilters, KeepEveryCondition) {
  const auto pod = PodFilterFromProto(Parse<api::PodSandboxFilter>(
      R"(id: "ab" state { state: SANDBOX_NOTREADY } label_selector { key: "k" value: "v" })"));
  EXPECT_EQ(pod.id, "ab");
  EXPECT_EQ(pod.state, sandbox::PodState::kNotReady);
  EXPECT_EQ(pod.labels.at("k"), "v");
  EXPECT_FALSE(PodFilterFromProto(api::PodSandboxFilter()).state.has_value());
  const auto container = ContainerFilterFromProto(Parse<api::ContainerFilter>(
      R"(id: "c" pod_sandbox_id: "p" state { state: CONTAINER_RUNNING } label_selector { key: "k" value: "v" })"));
  EXPECT_EQ(container.id, "c");
  EXPECT_EQ(container.pod_id, "p");
  EXPECT_EQ(container.state, sandbox::ContainerState::kRunning);
  EXPECT_EQ(container.labels.at("k"), "v");
}

TEST(ConvertImage, UserIsANumberOrAName) {
  images::Image image;
  image.id = "sha256:1";
  image.repository_tags = {"h/a:1", "h/a:2"};
  image.repository_digests = {"h/a@sha256:2"};
  image.size_bytes = 42;
  image.pinned = true;
  image.run.user = "1000:50";
  api::Image out;
  ImageToProto(image, &out);
  EXPECT_EQ(out.id(), "sha256:1");
  EXPECT_EQ(out.repo_tags_size(), 2);
  EXPECT_EQ(out.repo_digests(0), "h/a@sha256:2");
  EXPECT_EQ(out.size(), 42U);
  EXPECT_TRUE(out.pinned());
  EXPECT_EQ(out.uid().value(), 1000);
  for (const char* name :
       {"bob:1", "9223372036854775808", "18446744073709551616", "1x", "+1", " 1", "1 ", "0x0", "-"}) {
    image.run.user = name;
    api::Image named;
    ImageToProto(image, &named);
    EXPECT_FALSE(named.has_uid()) << name;
    EXPECT_EQ(named.username(), std::string(name).substr(0, std::string(name).find(':')));
  }
}

TEST(ConvertImage, Cfg01NumbersThatNoUserHasAreRefusedWithTheContainer) {
  for (const std::int64_t uid : {std::int64_t{-1}, std::int64_t{1} << 31, (std::int64_t{1} << 32) + 1,
                                 std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
    images::Image image;
    image.run.user = std::to_string(uid) + ":7";
    api::Image out;
    ImageToProto(image, &out);
    ASSERT_TRUE(out.has_uid()) << uid;
    EXPECT_EQ(out.uid().value(), uid);
    // What the kubelet makes of it.
    api::ContainerConfig container = WholeContainer();
    container.mutable_linux()->mutable_security_context()->mutable_run_as_user()->set_value(uid);
    const auto config = ContainerConfigFromProto(container);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(std::to_string(uid) + " is out of range"));
  }
  // A root that is written otherwise.
  for (const char* root : {"0", "00", "-0", "0:1000"}) {
    images::Image image;
    image.run.user = root;
    api::Image out;
    ImageToProto(image, &out);
    ASSERT_TRUE(out.has_uid()) << root;
    EXPECT_EQ(out.uid().value(), 0) << root;
  }
}

TEST(ConvertImage, CredentialsKeepEveryField) {
  const images::RegistryCredentials credentials = CredentialsFromProto(Parse<api::AuthConfig>(
      R"(username: "u" password: "p" auth: "a" server_address: "s" identity_token: "i" registry_token: "r")"));
  EXPECT_EQ(credentials.username, "u");
  EXPECT_EQ(credentials.password, "p");
  EXPECT_EQ(credentials.auth, "a");
  EXPECT_EQ(credentials.server_address, "s");
  EXPECT_EQ(credentials.identity_token, "i");
  EXPECT_EQ(credentials.registry_token, "r");
}

}  // namespace
}  // namespace husk::cri
