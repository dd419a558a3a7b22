#include "sandbox/network/default_bridge.h"

#include <arpa/inet.h>

#include <array>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "agent/common/subprocess.h"
#include "sandbox/network/cni_network.h"
#include "sandbox/network/json.h"
#include "sandbox/network/link.h"
#include "sandbox/network/namespace.h"

namespace husk::sandbox {
namespace {

constexpr char kSource[] = "Husk's default network";
constexpr std::size_t kLongestLinkName = 15;

std::string LeaseDirectory(const CniOptions& options) {
  return absl::StrCat(options.cache_directory, "/ipam");
}

Status CheckSubnet(const std::string& subnet) {
  const auto slash = subnet.find('/');
  in_addr address{};
  unsigned prefix = 0;
  const bool good = slash != std::string::npos && inet_pton(AF_INET, subnet.substr(0, slash).c_str(), &address) == 1 &&
                    absl::SimpleAtoi(subnet.substr(slash + 1), &prefix) && prefix >= 8 && prefix <= 30;
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the default network's subnet must be an IPv4 network of /8 to /30: \"", subnet, "\""));
}

std::string FindIptables() {
  for (const char* path : {"/usr/sbin/iptables", "/sbin/iptables", "/usr/local/sbin/iptables", "/usr/bin/iptables"}) {
    std::error_code error;
    if (std::filesystem::exists(path, error)) return path;
  }
  return "";
}

}  // namespace

StatusOr<CniConfigList> DefaultBridgeNetwork(const CniOptions& options, bool masquerade) {
  HUSK_RETURN_IF_ERROR(CheckSubnet(options.default_subnet));
  if (options.default_bridge.size() > kLongestLinkName) {
    return absl::InvalidArgumentError(absl::StrCat("too long for a bridge's name: ", options.default_bridge));
  }
  nlohmann::json bridge = {{"type", "bridge"},
                           {"bridge", options.default_bridge},
                           {"isGateway", true},
                           {"ipMasq", masquerade},
                           // So that a pod reaches itself by a service's address.
                           {"hairpinMode", true}};
  bridge["ipam"] = {{"type", "host-local"}, {"dataDir", LeaseDirectory(options)}};
  bridge["ipam"]["ranges"] = nlohmann::json::array();
  bridge["ipam"]["ranges"].push_back(nlohmann::json::array({{{"subnet", options.default_subnet}}}));
  bridge["ipam"]["routes"] = nlohmann::json::array({{{"dst", "0.0.0.0/0"}}});
  nlohmann::json plugins = nlohmann::json::array();
  plugins.push_back(std::move(bridge));
  if (masquerade) plugins.push_back({{"type", "portmap"}, {"capabilities", {{"portMappings", true}}}, {"snat", true}});
  const nlohmann::json list = {{"cniVersion", "0.4.0"}, {"name", options.default_bridge}, {"plugins", plugins}};
  return ParseConfigList(WriteJson(list), kSource);
}

Status ProbeMasquerade(const Context& context) {
  const std::string iptables = FindIptables();
  if (iptables.empty()) return absl::FailedPreconditionError("iptables is not installed");
  return RunInNewNamespace([&]() -> Status {
    SubprocessOptions options;
    // Both matches that the bridge plugin uses. A process starts in the namespace of the thread that starts it.
    options.argv = {iptables,       "-w", "5",       "-t",        "nat",  "-A", "POSTROUTING", "-s",
                    "192.0.2.0/24", "-m", "comment", "--comment", "husk", "-j", "MASQUERADE"};
    HUSK_ASSIGN_OR_RETURN(const auto ended, RunSubprocess(context.WithTimeout(std::chrono::seconds(10)), options));
    if (ended.exit_code == 0) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("iptables cannot masquerade: ", ended.standard_error));
  });
}

Status RemoveDefaultBridge(const CniOptions& options) {
  if (options.default_bridge.empty()) return absl::OkStatus();
  const auto link = ReadLink(options.default_bridge);
  if (link.ok()) {
    if (link->kind != "bridge") {
      return absl::FailedPreconditionError(absl::StrCat(options.default_bridge, " is not a bridge"));
    }
    if (link->ports > 0) {
      return absl::FailedPreconditionError(absl::StrCat(options.default_bridge, " still has ", link->ports, " ports"));
    }
    HUSK_RETURN_IF_ERROR_DOING(DeleteLink(*link), options.default_bridge);
  } else if (!absl::IsNotFound(link.status())) {
    return link.status();
  }
  std::error_code error;
  std::filesystem::remove_all(absl::StrCat(LeaseDirectory(options), "/", options.default_bridge), error);
  std::filesystem::remove(LeaseDirectory(options), error);  // fails while another network has leases there
  return absl::OkStatus();
}

}  // namespace husk::sandbox
