#include "sandbox/cdi/spec.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"
#include "sandbox/cdi/yaml_tree.h"

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;

// What a file's author wrote, as a message can show it.
std::string Shown(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  return Printable(text, kLongest);
}

Status Bad(const std::string& field, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", why));
}

// One member of an object: its name and what takes it.
using Member = std::pair<const char*, std::function<Status(const Json&, const std::string&)>>;

// Calls what takes each member; what nobody takes is refused by its name.
Status Read(const Json& object, const std::string& field, const std::vector<Member>& members) {
  if (!object.is_object()) return Bad(field, "is no object");
  for (const auto& [key, value] : object.items()) {
    const std::string& name = key;
    const auto member = std::find_if(members.begin(), members.end(), [&](const Member& m) { return m.first == name; });
    const std::string path = absl::StrCat(field.empty() ? "" : field + ".", Shown(name));
    if (member == members.end()) return Bad(path, "is no field of a CDI specification");
    if (value.is_null()) continue;
    HUSK_RETURN_IF_ERROR(member->second(value, path));
  }
  return absl::OkStatus();
}

Member Text(const char* name, std::string& into) {
  return {name, [&into](const Json& value, const std::string& field) -> Status {
            if (!value.is_string()) return Bad(field, "is no text");
            into = value.get<std::string>();
            return into.find('\0') == std::string::npos ? absl::OkStatus() : Bad(field, "has a NUL byte");
          }};
}

StatusOr<std::uint32_t> AsNumber(const Json& value, const std::string& field) {
  constexpr std::int64_t kLargest = std::numeric_limits<std::uint32_t>::max();
  const std::int64_t number = value.is_number_integer() ? value.get<std::int64_t>() : -1;
  if (number < 0 || number > kLargest) return Bad(field, "is no number from 0 to 4294967295");
  return static_cast<std::uint32_t>(number);
}

Member Number(const char* name, std::optional<std::uint32_t>& into) {
  return {name, [&into](const Json& value, const std::string& field) -> Status {
            HUSK_ASSIGN_OR_RETURN(into, AsNumber(value, field));
            return absl::OkStatus();
          }};
}

Member List(const char* name, std::function<Status(const Json&, const std::string&)> take) {
  return {name, [take = std::move(take)](const Json& value, const std::string& field) -> Status {
            if (!value.is_array()) return Bad(field, "is no list");
            for (std::size_t index = 0; index < value.size(); ++index) {
              HUSK_RETURN_IF_ERROR(take(value[index], absl::StrCat(field, "[", index, "]")));
            }
            return absl::OkStatus();
          }};
}

// Read, and of no meaning here.
Member Ignored(const char* name) {
  return {name, [](const Json&, const std::string&) { return absl::OkStatus(); }};
}

Member Refused(const char* name, const char* why, CdiEdits& edits) {
  return {name, [name, why, &edits](const Json& value, const std::string&) {
            if (!value.empty()) edits.refusals.push_back(absl::StrCat(name, ": ", why));
            return absl::OkStatus();
          }};
}

// ---- names ----------------------------------------------------------------------------------------------------------

bool IsAlphanumeric(char byte) {
  return std::isalnum(static_cast<unsigned char>(byte)) != 0;
}

bool IsName(std::string_view name, std::string_view more, bool begins_with_letter) {
  if (name.empty() || !IsAlphanumeric(name.front()) || !IsAlphanumeric(name.back())) return false;
  if (begins_with_letter && std::isdigit(static_cast<unsigned char>(name.front())) != 0) return false;
  return std::all_of(name.begin(), name.end(),
                     [&](char byte) { return IsAlphanumeric(byte) || more.find(byte) != std::string_view::npos; });
}

bool IsKind(std::string_view kind) {
  const std::size_t slash = kind.find('/');
  if (slash == std::string_view::npos) return false;
  return IsName(kind.substr(0, slash), "_-.", true) && IsName(kind.substr(slash + 1), "_-", true);
}

bool IsDeviceName(std::string_view name) {
  return IsName(name, "_-.:", false);
}

bool IsKnownVersion(const std::string& version) {
  static const std::vector<std::string> known = {"0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0",
                                                 "0.7.0", "0.8.0", "1.0.0", "1.1.0"};
  return std::find(known.begin(), known.end(), version) != known.end();
}

// ---- edits ----------------------------------------------------------------------------------------------------------

Status ReadVariable(const Json& value, const std::string& field, CdiEdits& edits) {
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || text.find('\0') != std::string::npos) {
    return Bad(field, "is not NAME=value");
  }
  edits.environment.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  return absl::OkStatus();
}

Status ReadDeviceNode(const Json& value, const std::string& field, CdiEdits& edits) {
  CdiDeviceNode node;
  ContainerDevice& device = node.device;
  HUSK_RETURN_IF_ERROR(Read(
      value, field,
      {Text("path", device.container_path), Text("hostPath", device.host_path), Text("permissions", device.permissions),
       Text("type", node.type), Number("major", node.major), Number("minor", node.minor),
       Number("fileMode", device.mode), Number("uid", device.uid), Number("gid", device.gid)}));
  if (device.container_path.empty()) return Bad(field + ".path", "is missing");
  if (device.host_path.empty()) device.host_path = device.container_path;
  if (device.permissions.empty()) device.permissions = "rwm";
  if (device.permissions.find_first_not_of("rwm") != std::string::npos) {
    return Bad(field + ".permissions", "are not of r, w and m");
  }
  if (node.type != "" && node.type != "b" && node.type != "c" && node.type != "u" && node.type != "p") {
    return Bad(field + ".type", "is not b, c, u or p");
  }
  if (node.type == "p") {
    edits.refusals.push_back(absl::StrCat("deviceNodes: ", Shown(device.container_path),
                                          ": a FIFO of the host does not reach into a virtual machine"));
  }
  edits.devices.push_back(std::move(node));
  return absl::OkStatus();
}

// Kept, without a meaning of its own, or named as what cannot be.
Status ReadMountOption(const std::string& option, const std::string& field, ContainerMount& mount, CdiEdits& edits) {
  static const std::vector<std::string> usual = {"rw", "bind", "rbind", "private", "rprivate", "suid", "dev", "exec"};
  static const std::vector<std::string> flags = {"nosuid", "nodev", "noexec"};
  const auto is_in = [&](const auto& list) { return std::find(list.begin(), list.end(), option) != list.end(); };
  if (option == "ro") {
    mount.read_only = true;
  } else if (is_in(flags)) {
    mount.flags.push_back(option);
  } else if (!is_in(usual)) {
    edits.refusals.push_back(
        absl::StrCat("mounts: ", Shown(mount.container_path), ": option \"", Shown(option), "\" is not supported"));
  }
  return option.empty() ? Bad(field, "is empty") : absl::OkStatus();
}

Status ReadMount(const Json& value, const std::string& field, CdiEdits& edits) {
  ContainerMount mount;
  mount.of_device = true;
  std::string type;
  std::vector<std::string> options;
  HUSK_RETURN_IF_ERROR(Read(value, field,
                            {Text("hostPath", mount.host_path), Text("containerPath", mount.container_path),
                             Text("type", type), List("options", [&](const Json& option, const std::string& where) {
                               return Text("", options.emplace_back()).second(option, where);
                             })}));
  if (mount.host_path.empty()) return Bad(field + ".hostPath", "is missing");
  if (mount.container_path.empty()) return Bad(field + ".containerPath", "is missing");
  if (type != "" && type != "bind" && type != "none") {
    edits.refusals.push_back(
        absl::StrCat("mounts: ", Shown(mount.container_path), ": type \"", Shown(type), "\" is not supported"));
  }
  for (const std::string& option : options) {
    HUSK_RETURN_IF_ERROR(ReadMountOption(option, field + ".options", mount, edits));
  }
  edits.mounts.push_back(std::move(mount));
  return absl::OkStatus();
}

Status ReadEdits(const Json& value, const std::string& field, CdiEdits& edits) {
  return Read(value, field,
              {List("env", [&](const Json& v, const std::string& f) { return ReadVariable(v, f, edits); }),
               List("deviceNodes", [&](const Json& v, const std::string& f) { return ReadDeviceNode(v, f, edits); }),
               List("mounts", [&](const Json& v, const std::string& f) { return ReadMount(v, f, edits); }),
               List("additionalGids",
                    [&](const Json& v, const std::string& f) -> Status {
                      HUSK_ASSIGN_OR_RETURN(edits.additional_gids.emplace_back(), AsNumber(v, f));
                      return absl::OkStatus();
                    }),
               Refused("hooks", "programs of the host cannot act on a container in a virtual machine", edits),
               Refused("netDevices", "a network interface of the host cannot be moved into a virtual machine", edits),
               Refused("intelRdt", "a virtual machine has no cache or memory bandwidth control", edits)});
}

Status ReadDevice(const Json& value, const std::string& field, CdiSpec& spec) {
  std::string name;
  CdiEdits edits;
  HUSK_RETURN_IF_ERROR(
      Read(value, field,
           {Text("name", name), Ignored("annotations"), {"containerEdits", [&](const Json& v, const std::string& f) {
                                                           return ReadEdits(v, f, edits);
                                                         }}}));
  if (!IsDeviceName(name)) return Bad(field + ".name", absl::StrCat("\"", Shown(name), "\" is no name"));
  if (!spec.devices.emplace(name, std::move(edits)).second) return Bad(field + ".name", name + " comes twice");
  return absl::OkStatus();
}

}  // namespace

StatusOr<CdiSpec> ParseCdiSpec(std::string_view text) {
  if (text.size() > kLongestCdiSpec) return absl::InvalidArgumentError("has more than 1 MiB");
  HUSK_ASSIGN_OR_RETURN(const Json tree, ParseYamlTree(text));
  CdiSpec spec;
  std::string version;
  HUSK_RETURN_IF_ERROR(
      Read(tree, "",
           {Text("cdiVersion", version),
            Text("kind", spec.kind),
            Ignored("annotations"),
            {"containerEdits", [&](const Json& v, const std::string& f) { return ReadEdits(v, f, spec.edits); }},
            List("devices", [&](const Json& v, const std::string& f) { return ReadDevice(v, f, spec); })}));
  if (!IsKnownVersion(version)) return Bad("cdiVersion", absl::StrCat("\"", Shown(version), "\" is not known"));
  if (!IsKind(spec.kind)) return Bad("kind", absl::StrCat("\"", Shown(spec.kind), "\" is no vendor/class"));
  if (spec.devices.empty()) return Bad("devices", "there is none");
  return spec;
}

StatusOr<CdiName> ParseCdiName(const std::string& name) {
  const std::size_t equals = name.find('=');
  if (equals != std::string::npos) {
    CdiName parsed{.kind = name.substr(0, equals), .device = name.substr(equals + 1)};
    if (IsKind(parsed.kind) && IsDeviceName(parsed.device)) return parsed;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("CDI device \"", Shown(name), "\": not of the form vendor.com/class=device"));
}

}  // namespace husk::sandbox
