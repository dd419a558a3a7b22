#include "agent/guest/oci_bundle.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "agent/guest/oci_json.h"

namespace husk::agent {
namespace {

using Json = nlohmann::json;

// Deeper or larger ones than any real configuration are refused before the parser's memory is spent on them.
constexpr std::size_t kMaximumConfig = std::size_t{3} << 20;
constexpr int kMaximumDepth = 64;

StatusOr<Json> Parse(std::string_view text) {
  return ParseOciJson(text, "oci_config_json");
}

StatusOr<Json*> Member(Json& object, const char* name, Json::value_t type) {
  Json& member = object[name];
  if (member.is_null()) member = Json(type);
  if (member.type() != type) {
    return absl::InvalidArgumentError(absl::StrCat("oci_config_json: ", name, " has the wrong type"));
  }
  return &member;
}

std::string StringMember(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

Status FillProcess(Json& process, const BundleFacts& facts) {
  process["terminal"] = facts.terminal;
  process["user"]["uid"] = facts.user.uid;
  process["user"]["gid"] = facts.user.gid;
  process["user"]["additionalGids"] = facts.user.additional_gids;
  HUSK_ASSIGN_OR_RETURN(Json * environment, Member(process, "env", Json::value_t::array));
  const bool has_home = std::any_of(environment->begin(), environment->end(), [](const Json& entry) {
    return entry.is_string() && absl::StartsWith(entry.get_ref<const std::string&>(), "HOME=");
  });
  // The image chose the directory's name: what JSON or an environment cannot hold is left out.
  if (!has_home && facts.user.home.find('\0') == std::string::npos) environment->push_back("HOME=" + facts.user.home);
  return absl::OkStatus();
}

Json* FindMount(Json& mounts, std::string_view destination) {
  for (Json& mount : mounts) {
    if (mount.is_object() && StringMember(mount, "destination") == destination) return &mount;
  }
  return nullptr;
}

Json Bind(const std::string& destination, const std::string& source, const char* more) {
  return Json{{"destination", destination},
              {"type", "bind"},
              {"source", source},
              {"options", Json::array({"bind", "rw", "nosuid", "nodev", more})}};
}

// A mount hides what was mounted below it before: the shallow ones first.
std::vector<BundleFacts::Bind> ShallowFirst(std::vector<BundleFacts::Bind> binds) {
  const auto depth = [](const BundleFacts::Bind& bind) {
    return std::count(bind.destination.begin(), bind.destination.end(), '/');
  };
  std::stable_sort(binds.begin(), binds.end(), [&](const auto& a, const auto& b) { return depth(a) < depth(b); });
  return binds;
}

Status AddVolumes(Json& mounts, const BundleFacts& facts) {
  for (const BundleFacts::Bind& bind : ShallowFirst(facts.volumes)) {
    if (bind.destination.size() < 2 || bind.destination.front() != '/') {
      return absl::InvalidArgumentError(absl::StrCat("a volume cannot be mounted at \"", bind.destination, "\""));
    }
    Json options = Json::array({"rbind", "rprivate", bind.read_only ? "ro" : "rw"});
    for (const std::string& flag : bind.flags) options.push_back(flag);
    mounts.push_back({{"destination", bind.destination},
                      {"type", "bind"},
                      {"source", bind.source},
                      {"options", std::move(options)}});
  }
  return absl::OkStatus();
}

// A node for each, and the right to use it, behind the rule that denies all others.
Status AddDevices(Json& linux_part, const std::vector<DeviceNode>& devices) {
  if (devices.empty()) return absl::OkStatus();
  HUSK_ASSIGN_OR_RETURN(Json * nodes, Member(linux_part, "devices", Json::value_t::array));
  HUSK_ASSIGN_OR_RETURN(Json * resources, Member(linux_part, "resources", Json::value_t::object));
  HUSK_ASSIGN_OR_RETURN(Json * rules, Member(*resources, "devices", Json::value_t::array));
  for (const DeviceNode& device : devices) {
    const char* const type = device.block ? "b" : "c";
    nodes->push_back({{"path", device.path},
                      {"type", type},
                      {"major", device.major},
                      {"minor", device.minor},
                      {"fileMode", device.mode},
                      {"uid", device.uid},
                      {"gid", device.gid}});
    rules->push_back(
        {{"allow", true}, {"type", type}, {"major", device.major}, {"minor", device.minor}, {"access", device.access}});
  }
  return absl::OkStatus();
}

bool IsNamespace(const Json& entry, std::string_view type) {
  return entry.is_object() && StringMember(entry, "type") == type;
}

void JoinPidNamespace(Json& namespaces, const std::string& path) {
  namespaces.erase(
      std::remove_if(namespaces.begin(), namespaces.end(), [](const Json& entry) { return IsNamespace(entry, "pid"); }),
      namespaces.end());
  namespaces.push_back({{"type", "pid"}, {"path", path}});
}

void FillMounts(Json& mounts, const BundleFacts& facts, bool has_own_ipc) {
  // After all others: a mount of the configuration may hold the directory.
  for (const char* name : {"resolv.conf", "hosts", "hostname"}) {
    const std::string destination = absl::StrCat("/etc/", name);
    if (FindMount(mounts, destination) != nullptr) continue;
    mounts.push_back(Bind(destination, absl::StrCat(facts.pod_files, "/", name), "noexec"));
  }
  if (has_own_ipc) return;
  // The pod's containers share one /dev/shm unless a volume is mounted there.
  Json shm = Bind("/dev/shm", absl::StrCat(facts.pod_files, "/shm"), "noexec");
  Json* const present = FindMount(mounts, "/dev/shm");
  if (present == nullptr) {
    mounts.push_back(std::move(shm));
  } else if (StringMember(*present, "type") != "bind") {
    *present = std::move(shm);
  }
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

StatusOr<Json> ParseOciJson(std::string_view text, std::string_view field) {
  const auto refuse = [field](const char* why) {
    return absl::InvalidArgumentError(absl::StrCat(absl::string_view(field.data(), field.size()), why));
  };
  if (text.size() > kMaximumConfig) return refuse(" is too large");
  bool too_deep = false;
  Json json = Json::parse(
      text,
      [&too_deep](int depth, Json::parse_event_t, Json&) {
        too_deep = too_deep || depth > kMaximumDepth;
        return !too_deep;
      },
      /*allow_exceptions=*/false);
  if (json.is_discarded() || too_deep || !json.is_object()) return refuse(" is not a JSON object");
  return json;
}

StatusOr<std::string> CompleteConfig(std::string_view oci_config_json, const BundleFacts& facts) {
  HUSK_ASSIGN_OR_RETURN(Json config, Parse(oci_config_json));
  HUSK_ASSIGN_OR_RETURN(Json * root, Member(config, "root", Json::value_t::object));
  (*root)["path"] = facts.root_path;
  (*root)["readonly"] = facts.readonly_root;
  HUSK_ASSIGN_OR_RETURN(Json * process, Member(config, "process", Json::value_t::object));
  HUSK_RETURN_IF_ERROR(Member(*process, "user", Json::value_t::object).status());
  HUSK_RETURN_IF_ERROR(FillProcess(*process, facts));
  HUSK_ASSIGN_OR_RETURN(Json * linux_part, Member(config, "linux", Json::value_t::object));
  (*linux_part)["cgroupsPath"] = facts.cgroups_path;
  HUSK_RETURN_IF_ERROR(AddDevices(*linux_part, facts.devices));
  HUSK_ASSIGN_OR_RETURN(Json * mounts, Member(config, "mounts", Json::value_t::array));
  HUSK_RETURN_IF_ERROR(AddVolumes(*mounts, facts));
  HUSK_ASSIGN_OR_RETURN(Json * namespaces, Member(*linux_part, "namespaces", Json::value_t::array));
  if (!facts.pid_namespace.empty()) JoinPidNamespace(*namespaces, facts.pid_namespace);
  FillMounts(*mounts, facts, std::any_of(namespaces->begin(), namespaces->end(), [](const Json& entry) {
    return IsNamespace(entry, "ipc");
  }));
  return Dump(config);
}

namespace {

// Full-screen programs ask TERM what the terminal can do; a container without one has none.
void NameTerminal(Json* process) {
  Json& environment = (*process)["env"];
  if (!environment.is_array()) environment = Json::array();
  for (const Json& variable : environment) {
    if (variable.is_string() && variable.get_ref<const std::string&>().starts_with("TERM=")) return;
  }
  environment.push_back("TERM=xterm");
}

}  // namespace

StatusOr<std::string> ExecProcess(std::string_view complete_config_json, const std::vector<std::string>& arguments,
                                  bool terminal) {
  HUSK_ASSIGN_OR_RETURN(Json config, Parse(complete_config_json));
  HUSK_ASSIGN_OR_RETURN(Json * process, Member(config, "process", Json::value_t::object));
  if (arguments.empty()) return absl::InvalidArgumentError("an exec needs a program");
  Json list = Json::array();
  for (const auto& argument : arguments) {
    if (argument.find('\0') != std::string::npos) return absl::InvalidArgumentError("an argument has a NUL byte");
    const Json value = argument;
    // The strict dump throws on what is not UTF-8; the ignoring one drops it, and so shows it.
    const std::string said = value.dump(-1, ' ', false, Json::error_handler_t::ignore);
    if (Json::parse(said, nullptr, false).get<std::string>() != argument) {
      return absl::InvalidArgumentError("an argument is not UTF-8, which crun cannot pass on");
    }
    list.push_back(value);
  }
  (*process)["args"] = std::move(list);
  (*process)["terminal"] = terminal;
  process->erase("consoleSize");
  if (terminal) NameTerminal(process);
  return Dump(*process);
}

}  // namespace husk::agent
