// What the agent computes of requests: an OCI configuration completed and changed, users looked up in an image's own
// files, names and addresses. The first byte picks which.
#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/fuzz_require.h"
#include "agent/guest/network.h"
#include "agent/guest/oci_bundle.h"
#include "agent/guest/resources.h"
#include "agent/guest/sandbox.h"
#include "agent/guest/user_lookup.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {
namespace {

using Json = nlohmann::json;

constexpr std::uint32_t kHighestId = 0x7fffffff;
constexpr std::size_t kMaximumGroups = 65536;

// Text before the first `separator`, which is taken too.
std::string TakeUntil(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  std::string part(text.substr(0, end));
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

void RequireRefused(const Status& status) {
  fuzz::Require(absl::IsInvalidArgument(status), "what is wrong is refused as such: " + status.ToString());
}

void RunConfig(fuzz::Script& script) {
  BundleFacts facts;
  facts.root_path = "/run/husk/root";
  facts.readonly_root = script.Byte() % 2 != 0;
  facts.cgroups_path = "/husk/c";
  facts.pod_files = "/run/husk/pod";
  facts.user = {.uid = script.Byte(), .gid = script.Byte(), .additional_gids = {7}, .home = std::string(script.Text())};
  if (const std::string destination(script.Text()); !destination.empty()) {
    facts.volumes.push_back({.source = "/run/husk/volume", .destination = destination});
  }
  const std::string text(script.Rest());
  const auto complete = CompleteConfig(text, facts);
  if (!complete.ok()) return RequireRefused(complete.status());
  const Json config = Json::parse(*complete, nullptr, false);
  fuzz::Require(config.is_object() && config["root"]["path"] == "/run/husk/root", "the root is the guest's");
  fuzz::Require(config["linux"]["cgroupsPath"] == "/husk/c", "the cgroup is the guest's");
  fuzz::Require(config["process"]["user"]["uid"] == facts.user.uid, "the user is the one that was looked up");
  fuzz::Require(!config["mounts"].empty(), "the pod's files are mounted");
  const auto process = ExecProcess(*complete, {"/bin/sh", text.substr(0, 8)}, true);
  if (!process.ok()) return RequireRefused(process.status());
  fuzz::Require(Json::parse(*process, nullptr, false)["terminal"] == true, "an exec has the terminal that it asks for");
}

void RunResources(fuzz::Script& script) {
  const GuestTopology topology{.cpus = "0-1", .memory_nodes = "0"};
  std::string_view rest = script.Rest();
  const std::string resources = TakeUntil(rest, '\n');
  const auto fitted = FitResources(resources, topology);
  if (!fitted.ok()) return RequireRefused(fitted.status());
  const auto again = FitResources(*fitted, topology);
  fuzz::Require(again.ok() && *again == *fitted, "what fits stays as it is");
  const auto merged = MergeResources(rest, *fitted);
  if (!merged.ok()) return RequireRefused(merged.status());
  const auto config = FitConfig(*merged, topology);
  fuzz::Require(config.ok(), "what was merged is a configuration");
}

void RunUser(fuzz::Script& script) {
  v1::User user;
  const std::uint8_t kind = script.Byte();
  std::string_view rest = script.Rest();
  const std::string name = TakeUntil(rest, '\n');
  if ((kind & 1) != 0) user.set_username(name);
  if ((kind & 2) != 0) user.set_image_user(name);
  if ((kind & 4) != 0) user.set_uid(static_cast<std::int64_t>(kind) * 20'000'000 - 1);
  if ((kind & 8) != 0) user.set_gid(-5 + static_cast<std::int64_t>(kind));
  user.set_strict_supplemental_groups((kind & 16) != 0);
  if ((kind & 32) != 0) user.add_supplemental_gids(kind);
  const std::string passwd = TakeUntil(rest, '\0');
  const auto resolved = ResolveUser(user, passwd, rest);
  if (!resolved.ok()) return RequireRefused(resolved.status());
  fuzz::Require(resolved->uid <= kHighestId && resolved->gid <= kHighestId, "ids are in range");
  const auto& gids = resolved->additional_gids;
  fuzz::Require(gids.size() <= kMaximumGroups, "groups are as many as a kernel takes");
  fuzz::Require(std::adjacent_find(gids.begin(), gids.end(), std::greater_equal<>()) == gids.end(),
                "groups are sorted, each once");
  fuzz::Require(std::find(gids.begin(), gids.end(), resolved->gid) != gids.end(), "the main group is among them");
}

void RunSandbox(fuzz::Script& script) {
  const std::string text(script.Rest());
  if (const auto path = SysctlPath(text); path.ok()) {
    fuzz::Require(path->starts_with("/proc/sys/") && path->find("/../") == std::string::npos &&
                      !path->ends_with("/..") && path->find('\0') == std::string::npos,
                  "a sysctl is below /proc/sys");
  } else {
    RequireRefused(path.status());
  }
  if (const auto prefix = ParsePrefix(text); prefix.ok()) {
    fuzz::Require(prefix->size <= prefix->bytes.size() && prefix->length <= prefix->size * 8, "a prefix is in range");
  }
  static_cast<void>(ParseMac(text));
  v1::SandboxConfig config;
  if (!config.ParseFromString(text)) return;
  static_cast<void>(Hosts(config));
  static_cast<void>(ResolvConf(config));
}

// A request as a frame has it: whatever method it names, its payload is one of these or is refused.
void RunEnvelope(fuzz::Script& script) {
  v1::RpcRequest request;
  const std::string text(script.Rest());
  if (!request.ParseFromString(text)) return;
  v1::CreateContainerRequest create;
  v1::PollRequest poll;
  v1::ChangeVolumeRequest change;
  if (create.ParseFromString(request.payload())) {
    static_cast<void>(CompleteConfig(create.spec().oci_config_json(), {}));
    static_cast<void>(ResolveUser(create.spec().user(), "root:x:0:0::/root:/bin/sh\n", "root:x:0:\n"));
  }
  static_cast<void>(poll.ParseFromString(request.payload()));
  static_cast<void>(change.ParseFromString(request.payload()));
}

void Run(fuzz::Script script) {
  switch (script.Byte() % 5) {
    case 0:
      return RunConfig(script);
    case 1:
      return RunResources(script);
    case 2:
      return RunUser(script);
    case 3:
      return RunSandbox(script);
    default:
      return RunEnvelope(script);
  }
}

}  // namespace
}  // namespace husk::agent

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::agent::Run(husk::fuzz::Script(data, size));
  return 0;
}
