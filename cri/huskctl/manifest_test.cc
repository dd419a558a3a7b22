#include "cri/huskctl/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cri/huskctl/quantity.h"

namespace husk::huskctl {
namespace {

namespace api = ::runtime::v1;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kPod[] = R"(apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: shop}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1000, supplementalGroups: [7]}
  dnsConfig: {nameservers: [10.0.0.1], options: [{name: ndots, value: "2"}, {name: rotate}]}
  containers:
  - name: app
    image: host/app:1
    imagePullPolicy: Always
    command: [/bin/sh, -c]
    args: ["echo $X; sleep 1"]
    workingDir: /srv
    env: [{name: X, value: "a b"}, {name: EMPTY}]
    ports: [{containerPort: 80, hostPort: 8080, protocol: UDP}]
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  - name: side
    image: host/side:2
    resources: {requests: {cpu: "1"}, limits: {cpu: 1.5, memory: 1Gi}}
    securityContext: {runAsUser: 0, privileged: true}
)";

StatusOr<Manifest> Parse(const std::string& text) {
  return ParseManifest(text, "pod.yaml", "uid1", "/logs");
}

TEST(Manifest, BecomesWhatAKubeletWouldSend) {
  const StatusOr<Manifest> manifest = Parse(kPod);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_THAT(manifest->warnings, testing::IsEmpty());
  const api::PodSandboxConfig& pod = manifest->pod;
  EXPECT_EQ(pod.metadata().name(), "web");
  EXPECT_EQ(pod.metadata().namespace_(), "default");
  EXPECT_EQ(pod.metadata().uid(), "uid1");
  EXPECT_EQ(pod.hostname(), "web");
  EXPECT_EQ(pod.log_directory(), "/logs/default_web_uid1");
  EXPECT_EQ(pod.labels().at("app"), "shop");
  EXPECT_EQ(pod.linux().security_context().namespace_options().pid(), api::CONTAINER);
  EXPECT_EQ(pod.labels().at("io.kubernetes.pod.name"), "web");
  EXPECT_THAT(pod.dns_config().options(), ElementsAre("ndots:2", "rotate"));
  ASSERT_EQ(pod.port_mappings_size(), 1);
  EXPECT_EQ(pod.port_mappings(0).protocol(), api::UDP);
  EXPECT_EQ(pod.port_mappings(0).host_port(), 8080);
  EXPECT_EQ(pod.linux().resources().cpu_quota(), 200'000);
  EXPECT_EQ(pod.linux().resources().memory_limit_in_bytes(), (64LL << 20) + (1LL << 30));

  ASSERT_EQ(manifest->containers.size(), 2U);
  EXPECT_TRUE(manifest->containers[0].always_pull);
  const api::ContainerConfig& app = manifest->containers[0].config;
  EXPECT_EQ(app.image().image(), "host/app:1");
  EXPECT_THAT(app.command(), ElementsAre("/bin/sh", "-c"));
  EXPECT_THAT(app.args(), ElementsAre("echo $X; sleep 1"));
  EXPECT_EQ(app.working_dir(), "/srv");
  ASSERT_EQ(app.envs_size(), 2);
  EXPECT_EQ(app.envs(0).value(), "a b");
  EXPECT_EQ(app.log_path(), "app/0.log");
  EXPECT_EQ(app.linux().resources().cpu_quota(), 50'000);
  EXPECT_EQ(app.linux().resources().cpu_shares(), 512);
  EXPECT_EQ(app.linux().resources().memory_limit_in_bytes(), 64 << 20);
  const auto& security = app.linux().security_context();
  EXPECT_EQ(security.run_as_user().value(), 1000);
  EXPECT_EQ(security.namespace_options().pid(), api::CONTAINER);
  EXPECT_THAT(security.supplemental_groups(), ElementsAre(7));
  EXPECT_TRUE(security.readonly_rootfs() && security.no_new_privs());
  EXPECT_THAT(security.capabilities().drop_capabilities(), ElementsAre("ALL"));
  EXPECT_THAT(security.masked_paths(), testing::Contains("/proc/kcore"));

  const auto& side = manifest->containers[1].config.linux();
  EXPECT_EQ(side.security_context().run_as_user().value(), 0);
  EXPECT_TRUE(side.security_context().privileged());
  EXPECT_THAT(side.security_context().masked_paths(), testing::IsEmpty());
  EXPECT_EQ(side.resources().cpu_shares(), 1024);
  EXPECT_EQ(side.resources().cpu_quota(), 150'000);
}

TEST(Manifest, SeccompProfilesAndGroupsPolicies) {
  const auto parse = [](const std::string& pod, const std::string& container) {
    return Parse("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  securityContext: " + pod +
                 "\n  containers: [{name: b, image: c, securityContext: " + container + "}]\n");
  };
  auto manifest = parse("{seccompProfile: {type: RuntimeDefault}, supplementalGroupsPolicy: Strict}", "{}");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  const auto* security = &manifest->containers[0].config.linux().security_context();
  EXPECT_TRUE(security->has_seccomp());
  EXPECT_EQ(security->seccomp().profile_type(), api::SecurityProfile::RuntimeDefault);
  EXPECT_EQ(security->supplemental_groups_policy(), api::Strict);
  manifest = parse("{seccompProfile: {type: RuntimeDefault}}",
                   "{seccompProfile: {type: Localhost, localhostProfile: a/b.json}}");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  security = &manifest->containers[0].config.linux().security_context();
  EXPECT_EQ(security->seccomp().profile_type(), api::SecurityProfile::Localhost);
  EXPECT_EQ(security->seccomp().localhost_ref(), "/var/lib/kubelet/seccomp/a/b.json");
  EXPECT_FALSE(parse("{}", "{seccompProfile: {type: Localhost}}").ok());
  EXPECT_FALSE(parse("{}", "{seccompProfile: {type: Unconfined, localhostProfile: x}}").ok());
  EXPECT_FALSE(parse("{}", "{seccompProfile: {type: Default}}").ok());
  EXPECT_FALSE(parse("{supplementalGroupsPolicy: Both}", "{}").ok());
}

TEST(Manifest, UnknownFieldsAreNamed) {
  const StatusOr<Manifest> manifest = Parse(
      "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  nodeName: n\n  containers: [{name: b, image: c}]\n");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_THAT(manifest->warnings, ElementsAre("pod.yaml:5:3: spec.nodeName is unknown to huskctl and ignored"));
}

TEST(Manifest, HugePagesAreLimits) {
  const auto parse = [](const std::string& resources) {
    return Parse(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: [{name: b, image: c, resources: " +
        resources + "}]\n");
  };
  const auto manifest = parse(
      "{limits: {hugepages-2Mi: 64Mi, hugepages-1Gi: 2Gi, memory: 1Gi}, "
      "requests: {hugepages-2Mi: 65536Ki}}");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_THAT(manifest->warnings, testing::IsEmpty());
  const auto& limits = manifest->containers[0].config.linux().resources().hugepage_limits();
  ASSERT_EQ(limits.size(), 2);
  EXPECT_EQ(limits[0].page_size(), "1Gi");
  EXPECT_EQ(limits[0].limit(), std::uint64_t{2} << 30);
  EXPECT_EQ(limits[1].page_size(), "2Mi");
  EXPECT_EQ(limits[1].limit(), std::uint64_t{64} << 20);
  const auto refusal = [&](const std::string& resources) { return std::string(parse(resources).status().message()); };
  EXPECT_THAT(refusal("{limits: {hugepages-2Mi: 3Mi}}"), HasSubstr("limits.hugepages-2Mi: 3Mi is no number of pages"));
  EXPECT_THAT(refusal("{limits: {hugepages-big: 2Mi}}"), HasSubstr("\"big\" is no size of a page"));
  EXPECT_THAT(refusal("{limits: {hugepages-2Mi: much}}"), HasSubstr("pod.yaml:5:"));
  EXPECT_THAT(refusal("{requests: {hugepages-2Mi: 2Mi}}"), HasSubstr("requests.hugepages-2Mi must be the limit"));
  EXPECT_THAT(refusal("{limits: {hugepages-2Mi: 4Mi}, requests: {hugepages-2Mi: 2Mi}}"),
              HasSubstr("must be the limit"));
}

TEST(Manifest, APodWithoutLimitsEverywhereHasNone) {
  const StatusOr<Manifest> manifest = Parse(
      "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  hostNetwork: true\n  containers:\n"
      "  - {name: b, image: c, resources: {limits: {cpu: 1, memory: 1Gi}}}\n  - {name: d, image: c}\n");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->pod.linux().resources().cpu_quota(), 0);
  EXPECT_EQ(manifest->pod.linux().resources().memory_limit_in_bytes(), 0);
  EXPECT_EQ(manifest->pod.linux().security_context().namespace_options().network(), api::NODE);
}

TEST(Manifest, ErrorsNameTheirPlace) {
  const std::string head = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n";
  const std::pair<std::string, std::string> cases[] = {
      {"kind: Deployment\n", "pod.yaml:1:7: kind: huskctl runs manifests of kind Pod"},
      {"[1]", "expected a Pod manifest"},
      {"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "spec is missing"},
      {"apiVersion: v2\nkind: Pod\nspec: {}\n", "apiVersion"},
      {"a: [\n", "pod.yaml:"},
      {"kind: Pod\n---\nkind: Pod\n", "there are 2"},
      {head + "  containers: []\n", "spec.containers is missing or empty"},
      {head + "  containers: [{image: c}]\n", "spec.containers[0].name is missing"},
      {head + "  containers: [{name: b}]\n", "spec.containers[0].image is missing"},
      {head + "  containers: [{name: ../b, image: c}]\n", "has a slash"},
      {head + "  containers: [{name: b, image: c}, {name: b, image: c}]\n", "two containers are called b"},
      {head + "  volumes: []\n  containers: [{name: b, image: c}]\n", "pod.yaml:5:3: spec.volumes is not supported"},
      {head + "  containers: [{name: b, image: c, env: [{name: X, valueFrom: {}}]}]\n", "valueFrom is not supported"},
      {head + "  containers: [{name: b, image: c, resources: {limits: {memory: 1Q}}}]\n", "\"1Q\" is no quantity"},
      {head + "  containers: [{name: b, image: c, ports: [{containerPort: 70000}]}]\n", "from 1 to 65535"},
      {head + "  containers: [{name: b, image: c, ports: [{containerPort: 1, protocol: ICMP}]}]\n", "\"ICMP\""},
      {head + "  containers: [{name: b, image: c, tty: maybe}]\n", "expected true or false"},
      {head + "  containers: [{name: b, name: c, image: c}]\n", "given twice"},
      {"apiVersion: v1\nkind: Pod\nmetadata: {name: a/b}\nspec: {containers: [{name: b, image: c}]}\n", "slash"},
      {"apiVersion: v1\nkind: Pod\nmetadata: {}\nspec: {containers: [{name: b, image: c}]}\n", "metadata.name"},
  };
  for (const auto& [text, words] : cases) {
    const StatusOr<Manifest> manifest = Parse(text);
    ASSERT_FALSE(manifest.ok()) << text;
    EXPECT_THAT(std::string(manifest.status().message()), HasSubstr(words)) << text;
  }
}

TEST(Quantity, FollowsKubernetes) {
  EXPECT_EQ(*ParseMilli("500m"), 500);
  EXPECT_EQ(*ParseMilli("1.5"), 1500);
  EXPECT_EQ(*ParseMilli("2"), 2000);
  EXPECT_EQ(*ParseMilli("0.1"), 100);
  EXPECT_EQ(*ParseUnits("64Mi"), 64 << 20);
  EXPECT_EQ(*ParseUnits("1k"), 1000);
  EXPECT_EQ(*ParseUnits("1500m"), 2);
  for (const char* bad : {"", "m", "-1", "1 Gi", "1Q", "nan", "9999999Ti"}) EXPECT_FALSE(ParseUnits(bad).ok()) << bad;
}

}  // namespace
}  // namespace husk::huskctl
