#include "sandbox/oci/seccomp_localhost.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <initializer_list>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "agent/common/unique_fd.h"

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;

constexpr int kMaximumDepth = 32;
constexpr std::uint64_t kMaximumErrno = 4095;
constexpr std::uint64_t kArguments = 6;
// What the guest runs.
constexpr std::pair<int, int> kGuestKernel{6, 1};
constexpr const char* kNativeArchitecture = "SCMP_ARCH_X86_64";

Status Wrong(const std::string& place, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(place, ": ", why));
}

std::string Quoted(const std::string& text) {
  constexpr std::size_t kShown = 100;
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kShown)), text.size() > kShown ? "...\"" : "\"");
}

bool IsOneOf(const std::string& text, std::initializer_list<const char*> choices) {
  return std::any_of(choices.begin(), choices.end(), [&](const char* choice) { return text == choice; });
}

Status CheckMembers(const Json& object, const std::string& place, std::initializer_list<const char*> known) {
  if (!object.is_object()) return Wrong(place, "not a JSON object");
  for (const auto& [name, value] : object.items()) {
    if (!IsOneOf(name, known)) return Wrong(place, absl::StrCat("unknown member ", Quoted(name)));
  }
  return absl::OkStatus();
}

StatusOr<std::string> Text(const Json& object, const char* name, const std::string& place) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return std::string();
  if (!found->is_string()) return Wrong(absl::StrCat(place, ".", name), "not a string");
  return found->get<std::string>();
}

StatusOr<std::vector<std::string>> TextList(const Json& object, const char* name, const std::string& place) {
  std::vector<std::string> list;
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return list;
  if (!found->is_array()) return Wrong(absl::StrCat(place, ".", name), "not a list");
  for (const Json& entry : *found) {
    if (!entry.is_string()) return Wrong(absl::StrCat(place, ".", name), "has an entry that is not a string");
    list.push_back(entry.get<std::string>());
  }
  return list;
}

StatusOr<Json> Elements(const Json& object, const char* name, const std::string& place) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return Json::array();
  if (!found->is_array()) return Wrong(absl::StrCat(place, ".", name), "not a list");
  return *found;
}

Status CheckAction(const std::string& action, const std::string& place) {
  if (action.empty()) return Wrong(place, "missing");
  if (action == "SCMP_ACT_NOTIFY") return Wrong(place, "SCMP_ACT_NOTIFY has no listener inside a VM");
  if (IsOneOf(action, {"SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP",
                       "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"})) {
    return absl::OkStatus();
  }
  return Wrong(place, absl::StrCat("unknown action ", Quoted(action)));
}

// Copies an errno member, if there is one.
Status CopyErrno(const Json& from, const char* name, const std::string& place, Json& to) {
  const auto found = from.find(name);
  if (found == from.end() || found->is_null()) return absl::OkStatus();
  if (!found->is_number_unsigned() || found->get<std::uint64_t>() > kMaximumErrno) {
    return Wrong(absl::StrCat(place, ".", name), absl::StrCat("not a number from 0 to ", kMaximumErrno));
  }
  to[name] = *found;
  return absl::OkStatus();
}

StatusOr<std::uint64_t> Number(const Json& object, const char* name, const std::string& place) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return 0;
  if (!found->is_number_unsigned()) {
    return Wrong(absl::StrCat(place, ".", name), "not a number of 64 bits without a sign");
  }
  return found->get<std::uint64_t>();
}

StatusOr<Json> Argument(const Json& source, const std::string& place) {
  HUSK_RETURN_IF_ERROR(CheckMembers(source, place, {"index", "value", "valueTwo", "op"}));
  HUSK_ASSIGN_OR_RETURN(const std::uint64_t index, Number(source, "index", place));
  HUSK_ASSIGN_OR_RETURN(const std::uint64_t value, Number(source, "value", place));
  HUSK_ASSIGN_OR_RETURN(const std::uint64_t value_two, Number(source, "valueTwo", place));
  HUSK_ASSIGN_OR_RETURN(const std::string comparison, Text(source, "op", place));
  if (index >= kArguments)
    return Wrong(place + ".index", absl::StrCat(index, ": a system call has six arguments, 0-5"));
  if (!IsOneOf(comparison, {"SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
                            "SCMP_CMP_MASKED_EQ"})) {
    return Wrong(place + ".op", absl::StrCat("unknown comparison ", Quoted(comparison)));
  }
  return Json{{"index", index}, {"value", value}, {"valueTwo", value_two}, {"op", comparison}};
}

StatusOr<bool> IsOlderThanGuest(const std::string& version, const std::string& place) {
  const std::vector<std::string> parts = absl::StrSplit(version, '.');
  int major = 0;
  int minor = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &major) || !absl::SimpleAtoi(parts[1], &minor)) {
    return Wrong(place, absl::StrCat(Quoted(version), " is not of the form 4.8"));
  }
  return std::pair(major, minor) <= kGuestKernel;
}

struct Condition {
  bool holds_all = true;
  bool holds_one = false;
  void Add(bool holds) {
    holds_all = holds_all && holds;
    holds_one = holds_one || holds;
  }
};

StatusOr<Condition> Evaluate(const Json& rule, const char* name, const std::string& place,
                             const std::vector<std::string>& capabilities) {
  Condition condition;
  const auto found = rule.find(name);
  if (found == rule.end() || found->is_null()) return condition;
  const std::string here = absl::StrCat(place, ".", name);
  HUSK_RETURN_IF_ERROR(CheckMembers(*found, here, {"caps", "arches", "minKernel"}));
  HUSK_ASSIGN_OR_RETURN(const auto needed, TextList(*found, "caps", here));
  for (const std::string& capability : needed) {
    condition.Add(std::find(capabilities.begin(), capabilities.end(), capability) != capabilities.end());
  }
  HUSK_ASSIGN_OR_RETURN(const auto machines, TextList(*found, "arches", here));
  if (!machines.empty()) condition.Add(std::find(machines.begin(), machines.end(), "amd64") != machines.end());
  HUSK_ASSIGN_OR_RETURN(const std::string kernel, Text(*found, "minKernel", here));
  if (!kernel.empty()) {
    HUSK_ASSIGN_OR_RETURN(const bool older, IsOlderThanGuest(kernel, here + ".minKernel"));
    condition.Add(older);
  }
  return condition;
}

// All of `includes` have to hold, and none of `excludes`.
StatusOr<bool> Applies(const Json& rule, const std::string& place, const std::vector<std::string>& capabilities) {
  HUSK_ASSIGN_OR_RETURN(const Condition includes, Evaluate(rule, "includes", place, capabilities));
  HUSK_ASSIGN_OR_RETURN(const Condition excludes, Evaluate(rule, "excludes", place, capabilities));
  return includes.holds_all && !excludes.holds_one;
}

StatusOr<std::vector<std::string>> Names(const Json& source, const std::string& place) {
  HUSK_ASSIGN_OR_RETURN(std::vector<std::string> names, TextList(source, "names", place));
  HUSK_ASSIGN_OR_RETURN(const std::string name, Text(source, "name", place));
  if (!name.empty() && !names.empty()) return Wrong(place, "has both name and names");
  if (!name.empty()) names.push_back(name);
  if (names.empty()) return Wrong(place + ".names", "names no system call");
  for (const std::string& each : names) {
    const auto good = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
    if (each.empty() || !std::all_of(each.begin(), each.end(), good)) {
      return Wrong(place + ".names", absl::StrCat(Quoted(each), " is no name of a system call"));
    }
  }
  return names;
}

StatusOr<Json> Rule(const Json& source, const std::string& place) {
  Json rule = Json::object();
  HUSK_ASSIGN_OR_RETURN(rule["names"], Names(source, place));
  HUSK_ASSIGN_OR_RETURN(const std::string action, Text(source, "action", place));
  HUSK_RETURN_IF_ERROR(CheckAction(action, place + ".action"));
  rule["action"] = action;
  HUSK_RETURN_IF_ERROR(CopyErrno(source, "errnoRet", place, rule));
  HUSK_ASSIGN_OR_RETURN(const Json arguments, Elements(source, "args", place));
  Json converted = Json::array();
  for (const Json& argument : arguments) {
    HUSK_ASSIGN_OR_RETURN(Json one, Argument(argument, absl::StrCat(place, ".args[", converted.size(), "]")));
    converted.push_back(std::move(one));
  }
  if (!converted.empty()) rule["args"] = std::move(converted);
  return rule;
}

// Those of the guest: others of the list are for other nodes.
StatusOr<Json> Architectures(const Json& profile) {
  HUSK_ASSIGN_OR_RETURN(std::vector<std::string> names, TextList(profile, "architectures", "profile"));
  HUSK_ASSIGN_OR_RETURN(const Json map, Elements(profile, "archMap", "profile"));
  if (!map.empty() && !names.empty()) return Wrong("profile", "has both architectures and archMap");
  for (std::size_t i = 0; i < map.size(); ++i) {
    const std::string place = absl::StrCat("profile.archMap[", i, "]");
    HUSK_RETURN_IF_ERROR(CheckMembers(map[i], place, {"architecture", "subArchitectures"}));
    HUSK_ASSIGN_OR_RETURN(const std::string main, Text(map[i], "architecture", place));
    HUSK_ASSIGN_OR_RETURN(const auto others, TextList(map[i], "subArchitectures", place));
    if (main != kNativeArchitecture) continue;
    names.push_back(main);
    names.insert(names.end(), others.begin(), others.end());
  }
  if (names.empty() && map.empty()) return Json::array();
  if (std::find(names.begin(), names.end(), kNativeArchitecture) == names.end()) {
    return Wrong("profile.architectures", absl::StrCat("has no ", kNativeArchitecture, ", which is the guest's"));
  }
  Json known = Json::array();
  for (const std::string& name : names) {
    if (IsOneOf(name, {kNativeArchitecture, "SCMP_ARCH_X86", "SCMP_ARCH_X32"})) known.push_back(name);
  }
  return known;
}

StatusOr<Json> Flags(const Json& profile) {
  HUSK_ASSIGN_OR_RETURN(const auto flags, TextList(profile, "flags", "profile"));
  for (const std::string& flag : flags) {
    if (!IsOneOf(flag, {"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"})) {
      return Wrong("profile.flags", absl::StrCat("unknown flag ", Quoted(flag)));
    }
  }
  return Json(flags);
}

StatusOr<Json> ParseObject(std::string_view text) {
  bool too_deep = false;
  Json json = Json::parse(
      text,
      [&too_deep](int depth, Json::parse_event_t, Json&) {
        too_deep = too_deep || depth > kMaximumDepth;
        return !too_deep;
      },
      /*allow_exceptions=*/false);
  if (too_deep) return Wrong("profile", absl::StrCat("is nested more than ", kMaximumDepth, " deep"));
  if (json.is_discarded() || !json.is_object()) return Wrong("profile", "is not a JSON object");
  return json;
}

StatusOr<std::string> ReadAll(int file) {
  std::string bytes;
  std::array<char, 65536> buffer;  // NOLINT: read() fills it
  while (bytes.size() <= kMaximumSeccompProfile) {
    const ssize_t count = read(file, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "read it");
    if (count == 0) return bytes;
    bytes.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return absl::InvalidArgumentError(absl::StrCat("is larger than ", kMaximumSeccompProfile, " bytes"));
}

StatusOr<std::string> ReadRegularFile(const std::string& path) {
  if (path.empty() || path.front() != '/') return absl::InvalidArgumentError("not an absolute path");
  if (path.find('\0') != std::string::npos || absl::StrContains(absl::StrCat(path, "/"), "/../")) {
    return absl::InvalidArgumentError("has \"..\" or a NUL byte");
  }
  // A FIFO or a device would hold the call up, or have effects of its own by being read.
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.valid()) return ErrnoStatus(errno, "open it");
  struct stat info{};
  if (fstat(file.get(), &info) != 0) return ErrnoStatus(errno, "stat it");
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError("not a regular file");
  return ReadAll(file.get());
}

}  // namespace

StatusOr<std::string> ReadSeccompProfile(const std::string& path) {
  auto bytes = ReadRegularFile(path);
  if (!bytes.ok()) return Annotate(bytes.status(), absl::StrCat("seccomp profile ", Quoted(path)));
  return bytes;
}

StatusOr<Json> ParseSeccompProfile(std::string_view text, const std::vector<std::string>& capabilities) {
  HUSK_ASSIGN_OR_RETURN(const Json profile, ParseObject(text));
  if (profile.contains("listenerPath") || profile.contains("listenerMetadata")) {
    return Wrong("profile.listenerPath", "a listener on the host cannot be reached from a VM");
  }
  HUSK_RETURN_IF_ERROR(CheckMembers(
      profile, "profile",
      {"defaultAction", "defaultErrnoRet", "architectures", "archMap", "flags", "syscalls", "comment", "$schema"}));
  Json result = Json::object();
  HUSK_ASSIGN_OR_RETURN(const std::string action, Text(profile, "defaultAction", "profile"));
  HUSK_RETURN_IF_ERROR(CheckAction(action, "profile.defaultAction"));
  result["defaultAction"] = action;
  HUSK_RETURN_IF_ERROR(CopyErrno(profile, "defaultErrnoRet", "profile", result));
  HUSK_ASSIGN_OR_RETURN(Json architectures, Architectures(profile));
  if (!architectures.empty()) result["architectures"] = std::move(architectures);
  HUSK_ASSIGN_OR_RETURN(Json flags, Flags(profile));
  if (!flags.empty()) result["flags"] = std::move(flags);
  HUSK_ASSIGN_OR_RETURN(const Json rules, Elements(profile, "syscalls", "profile"));
  Json converted = Json::array();
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const std::string place = absl::StrCat("profile.syscalls[", i, "]");
    HUSK_RETURN_IF_ERROR(CheckMembers(
        rules[i], place, {"names", "name", "action", "errnoRet", "args", "comment", "includes", "excludes"}));
    HUSK_ASSIGN_OR_RETURN(Json rule, Rule(rules[i], place));
    HUSK_ASSIGN_OR_RETURN(const bool applies, Applies(rules[i], place, capabilities));
    if (applies) converted.push_back(std::move(rule));
  }
  result["syscalls"] = std::move(converted);
  return result;
}

}  // namespace husk::sandbox
