#include "sandbox/store/json_codec.h"

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

using nlohmann::json;

// ---- the fields of each structure, named once for both directions ---------------------------------------------------

// T is the named structure, const or not: to be written, or to be read into.
template <typename T, typename Named>
concept Holds = std::is_same_v<std::remove_const_t<T>, Named>;

template <typename Visit, Holds<PortMapping> T>
void Fields(Visit visit, T& value) {
  visit("protocol", value.protocol);
  visit("container_port", value.container_port);
  visit("host_port", value.host_port);
  visit("host_ip", value.host_ip);
}

template <typename Visit, Holds<NetworkRoute> T>
void Fields(Visit visit, T& value) {
  visit("destination", value.destination);
  visit("gateway", value.gateway);
  visit("metric", value.metric);
  visit("source", value.source);
}

template <typename Visit, Holds<NetworkNeighbour> T>
void Fields(Visit visit, T& value) {
  visit("address", value.address);
  visit("mac_address", value.mac_address);
}

template <typename Visit, Holds<NetworkInterface> T>
void Fields(Visit visit, T& value) {
  visit("name", value.name);
  visit("mac_address", value.mac_address);
  visit("mtu", value.mtu);
  visit("addresses", value.addresses);
  visit("routes", value.routes);
  visit("neighbours", value.neighbours);
}

template <typename Visit, Holds<NetworkResult> T>
void Fields(Visit visit, T& value) {
  visit("interfaces", value.interfaces);
  visit("dns_servers", value.dns_servers);
  visit("dns_searches", value.dns_searches);
  visit("dns_options", value.dns_options);
  visit("cni_result_json", value.cni_result_json);
}

template <typename Visit, Holds<NamespaceOptions> T>
void Fields(Visit visit, T& value) {
  visit("network", value.network);
  visit("pid", value.pid);
  visit("ipc", value.ipc);
  visit("target_container_id", value.target_container_id);
}

template <typename Visit, Holds<LinuxResources> T>
void Fields(Visit visit, T& value) {
  visit("cpu_period", value.cpu_period);
  visit("cpu_quota", value.cpu_quota);
  visit("cpu_shares", value.cpu_shares);
  visit("memory_limit_bytes", value.memory_limit_bytes);
  visit("oom_score_adjustment", value.oom_score_adjustment);
  visit("cpuset_cpus", value.cpuset_cpus);
  visit("cpuset_mems", value.cpuset_mems);
  visit("unified", value.unified);
  visit("memory_swap_limit_bytes", value.memory_swap_limit_bytes);
  visit("hugepage_limits", value.hugepage_limits);
}

template <typename Visit, Holds<PodMetadata> T>
void Fields(Visit visit, T& value) {
  visit("name", value.name);
  visit("uid", value.uid);
  visit("kubernetes_namespace", value.kubernetes_namespace);
  visit("attempt", value.attempt);
}

template <typename Visit, Holds<DnsConfig> T>
void Fields(Visit visit, T& value) {
  visit("servers", value.servers);
  visit("searches", value.searches);
  visit("options", value.options);
}

template <typename Visit, Holds<VmChoices> T>
void Fields(Visit visit, T& value) {
  visit("default_vcpus", value.default_vcpus);
  visit("unlimited_vcpus", value.unlimited_vcpus);
  visit("default_memory_bytes", value.default_memory_bytes);
  visit("unlimited_memory_bytes", value.unlimited_memory_bytes);
  visit("scratch_bytes", value.scratch_bytes);
}

template <typename Visit, Holds<PodConfig> T>
void Fields(Visit visit, T& value) {
  visit("metadata", value.metadata);
  visit("hostname", value.hostname);
  visit("log_directory", value.log_directory);
  visit("dns", value.dns);
  visit("port_mappings", value.port_mappings);
  visit("labels", value.labels);
  visit("annotations", value.annotations);
  visit("cgroup_parent", value.cgroup_parent);
  visit("sysctls", value.sysctls);
  visit("namespaces", value.namespaces);
  visit("privileged", value.privileged);
  visit("resources", value.resources);
  visit("overhead", value.overhead);
  visit("runtime_handler", value.runtime_handler);
  visit("vm_choices", value.vm_choices);
}

template <typename Visit, Holds<ContainerMetadata> T>
void Fields(Visit visit, T& value) {
  visit("name", value.name);
  visit("attempt", value.attempt);
}

template <typename Visit, Holds<UserSpec> T>
void Fields(Visit visit, T& value) {
  visit("uid", value.uid);
  visit("gid", value.gid);
  visit("username", value.username);
  visit("supplemental_gids", value.supplemental_gids);
  visit("strict_supplemental_groups", value.strict_supplemental_groups);
}

template <typename Visit, Holds<ResolvedUser> T>
void Fields(Visit visit, T& value) {
  visit("uid", value.uid);
  visit("gid", value.gid);
  visit("supplemental_gids", value.supplemental_gids);
}

template <typename Visit, Holds<SeccompProfile> T>
void Fields(Visit visit, T& value) {
  visit("kind", value.kind);
  visit("path", value.path);
}

template <typename Visit, Holds<SecurityContext> T>
void Fields(Visit visit, T& value) {
  visit("privileged", value.privileged);
  visit("add_capabilities", value.add_capabilities);
  visit("drop_capabilities", value.drop_capabilities);
  visit("add_ambient_capabilities", value.add_ambient_capabilities);
  visit("namespaces", value.namespaces);
  visit("user", value.user);
  visit("readonly_root", value.readonly_root);
  visit("no_new_privileges", value.no_new_privileges);
  visit("masked_paths", value.masked_paths);
  visit("readonly_paths", value.readonly_paths);
  visit("seccomp", value.seccomp);
}

template <typename Visit, Holds<ContainerMount> T>
void Fields(Visit visit, T& value) {
  visit("container_path", value.container_path);
  visit("host_path", value.host_path);
  visit("read_only", value.read_only);
  visit("flags", value.flags);
  visit("image", value.image);
  visit("image_sub_path", value.image_sub_path);
  visit("of_device", value.of_device);
  visit("follow_mounts", value.follow_mounts);
}

template <typename Visit, Holds<ContainerDevice> T>
void Fields(Visit visit, T& value) {
  visit("container_path", value.container_path);
  visit("host_path", value.host_path);
  visit("permissions", value.permissions);
  visit("mode", value.mode);
  visit("uid", value.uid);
  visit("gid", value.gid);
}

template <typename Visit, Holds<ContainerConfig> T>
void Fields(Visit visit, T& value) {
  visit("metadata", value.metadata);
  visit("image", value.image);
  visit("user_image", value.user_image);
  visit("image_annotations", value.image_annotations);
  visit("command", value.command);
  visit("arguments", value.arguments);
  visit("working_directory", value.working_directory);
  visit("environment", value.environment);
  visit("mounts", value.mounts);
  visit("devices", value.devices);
  visit("cdi_devices", value.cdi_devices);
  visit("labels", value.labels);
  visit("annotations", value.annotations);
  visit("log_path", value.log_path);
  visit("stdin", value.stdin);
  visit("stdin_once", value.stdin_once);
  visit("tty", value.tty);
  visit("resources", value.resources);
  visit("security", value.security);
  visit("stop_signal", value.stop_signal);
}

// ---- values ---------------------------------------------------------------------------------------------------------

// Structures are what is left when everything else has an overload or is a number.
template <typename T>
concept Number = std::is_arithmetic_v<T>;
template <typename T>
concept Enumeration = std::is_enum_v<T>;
template <typename T>
concept Structure = std::is_class_v<T>;

json Encode(const std::string& value) {
  json text(value);
  try {
    [[maybe_unused]] const std::string dumped = text.dump();
  } catch (const json::exception&) {
    return json{{"hex", absl::BytesToHexString(value)}};
  }
  return text;
}
template <Number T>
json Encode(T value) {
  return value;
}
template <Enumeration T>
json Encode(T value) {
  return static_cast<int>(value);
}
template <Structure T>
json Encode(const T& value);
json Encode(const StringMap& value) {
  json pairs = json::array();
  for (const auto& [key, entry] : value) pairs.push_back({Encode(key), Encode(entry)});
  return pairs;
}
json Encode(const std::map<std::string, std::uint64_t>& value) {
  json pairs = json::array();
  for (const auto& [key, entry] : value) pairs.push_back({Encode(key), Encode(entry)});
  return pairs;
}
json Encode(const std::pair<std::string, std::string>& value) {
  return {Encode(value.first), Encode(value.second)};
}
template <typename T>
json Encode(const std::vector<T>& value) {
  json list = json::array();
  for (const T& entry : value) list.push_back(Encode(entry));
  return list;
}
template <typename T>
json Encode(const std::optional<T>& value) {
  return value ? Encode(*value) : json();
}
template <Structure T>
json Encode(const T& value) {
  json object = json::object();
  Fields([&](const char* name, const auto& field) { object[name] = Encode(field); }, value);
  return object;
}

void Decode(const json& source, std::string& value) {
  value = source.is_object() ? absl::HexStringToBytes(source.at("hex").get<std::string>()) : source.get<std::string>();
}
template <Number T>
void Decode(const json& source, T& value) {
  value = source.get<T>();
}
template <Enumeration T>
void Decode(const json& source, T& value) {
  value = static_cast<T>(source.get<int>());
}
template <Structure T>
void Decode(const json& source, T& value);
void Decode(const json& source, std::pair<std::string, std::string>& value) {
  Decode(source.at(0), value.first);
  Decode(source.at(1), value.second);
}
void Decode(const json& source, StringMap& value) {
  for (const json& entry : source) {
    std::pair<std::string, std::string> pair;
    Decode(entry, pair);
    value.insert(std::move(pair));
  }
}
void Decode(const json& source, std::map<std::string, std::uint64_t>& value) {
  for (const json& entry : source) {
    std::string key;
    Decode(entry.at(0), key);
    Decode(entry.at(1), value[key]);
  }
}
template <typename T>
void Decode(const json& source, std::vector<T>& value) {
  for (const json& entry : source) Decode(entry, value.emplace_back());
}
template <typename T>
void Decode(const json& source, std::optional<T>& value) {
  if (!source.is_null()) Decode(source, value.emplace());
}
template <Structure T>
void Decode(const json& source, T& value) {
  Fields(
      [&](const char* name, auto& field) {
        if (const auto found = source.find(name); found != source.end()) Decode(*found, field);
      },
      value);
}

template <typename T>
StatusOr<T> FromJson(std::string_view text, const char* what) {
  try {
    const json source = json::parse(text);
    if (!source.is_object()) return absl::DataLossError(absl::StrCat("the stored ", what, " is not an object"));
    T value;
    Decode(source, value);
    return value;
  } catch (const json::exception& error) {
    return absl::DataLossError(absl::StrCat("the stored ", what, ": ", error.what()));
  }
}

}  // namespace

std::string ToJson(const PodConfig& config) {
  return Encode(config).dump();
}
std::string ToJson(const ContainerConfig& config) {
  return Encode(config).dump();
}
std::string ToJson(const LinuxResources& resources) {
  return Encode(resources).dump();
}
std::string ToJson(const ResolvedUser& user) {
  return Encode(user).dump();
}
std::string ToJson(const NetworkResult& network) {
  return Encode(network).dump();
}

StatusOr<PodConfig> PodConfigFromJson(std::string_view text) {
  return FromJson<PodConfig>(text, "pod configuration");
}
StatusOr<ContainerConfig> ContainerConfigFromJson(std::string_view text) {
  return FromJson<ContainerConfig>(text, "container configuration");
}
StatusOr<LinuxResources> LinuxResourcesFromJson(std::string_view text) {
  return FromJson<LinuxResources>(text, "limits");
}
StatusOr<ResolvedUser> ResolvedUserFromJson(std::string_view text) {
  return FromJson<ResolvedUser>(text, "user");
}
StatusOr<NetworkResult> NetworkResultFromJson(std::string_view text) {
  return FromJson<NetworkResult>(text, "network result");
}

}  // namespace husk::sandbox
