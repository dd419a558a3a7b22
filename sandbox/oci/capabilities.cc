#include "sandbox/oci/capabilities.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

const std::set<std::string>& DefaultCapabilities() {
  static const std::set<std::string> defaults = {
      "CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",
      "CAP_MKNOD",   "CAP_NET_RAW",      "CAP_SETGID",           "CAP_SETUID",
      "CAP_SETFCAP", "CAP_SETPCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
      "CAP_KILL",    "CAP_AUDIT_WRITE"};
  return defaults;
}

// The named ones as a set; all of them for "ALL".
StatusOr<std::set<std::string>> Resolve(const std::vector<std::string>& names) {
  const auto& all = AllCapabilities();
  std::set<std::string> resolved;
  for (const auto& name : names) {
    std::string full = absl::AsciiStrToUpper(name);
    if (full == "ALL") {
      resolved.insert(all.begin(), all.end());
      continue;
    }
    if (!absl::StartsWith(full, "CAP_")) full.insert(0, "CAP_");
    if (std::find(all.begin(), all.end(), full) == all.end()) {
      return absl::InvalidArgumentError(absl::StrCat("unknown capability \"", name, "\""));
    }
    resolved.insert(std::move(full));
  }
  return resolved;
}

std::vector<std::string> InKernelOrder(const std::set<std::string>& set) {
  std::vector<std::string> ordered;
  std::copy_if(AllCapabilities().begin(), AllCapabilities().end(), std::back_inserter(ordered),
               [&](const std::string& name) { return set.contains(name); });
  return ordered;
}

}  // namespace

const std::vector<std::string>& AllCapabilities() {
  static const std::vector<std::string> all = {"CAP_CHOWN",
                                               "CAP_DAC_OVERRIDE",
                                               "CAP_DAC_READ_SEARCH",
                                               "CAP_FOWNER",
                                               "CAP_FSETID",
                                               "CAP_KILL",
                                               "CAP_SETGID",
                                               "CAP_SETUID",
                                               "CAP_SETPCAP",
                                               "CAP_LINUX_IMMUTABLE",
                                               "CAP_NET_BIND_SERVICE",
                                               "CAP_NET_BROADCAST",
                                               "CAP_NET_ADMIN",
                                               "CAP_NET_RAW",
                                               "CAP_IPC_LOCK",
                                               "CAP_IPC_OWNER",
                                               "CAP_SYS_MODULE",
                                               "CAP_SYS_RAWIO",
                                               "CAP_SYS_CHROOT",
                                               "CAP_SYS_PTRACE",
                                               "CAP_SYS_PACCT",
                                               "CAP_SYS_ADMIN",
                                               "CAP_SYS_BOOT",
                                               "CAP_SYS_NICE",
                                               "CAP_SYS_RESOURCE",
                                               "CAP_SYS_TIME",
                                               "CAP_SYS_TTY_CONFIG",
                                               "CAP_MKNOD",
                                               "CAP_LEASE",
                                               "CAP_AUDIT_WRITE",
                                               "CAP_AUDIT_CONTROL",
                                               "CAP_SETFCAP",
                                               "CAP_MAC_OVERRIDE",
                                               "CAP_MAC_ADMIN",
                                               "CAP_SYSLOG",
                                               "CAP_WAKE_ALARM",
                                               "CAP_BLOCK_SUSPEND",
                                               "CAP_AUDIT_READ",
                                               "CAP_PERFMON",
                                               "CAP_BPF",
                                               "CAP_CHECKPOINT_RESTORE"};
  return all;
}

StatusOr<std::vector<std::string>> NamedCapabilities(const std::vector<std::string>& names) {
  HUSK_ASSIGN_OR_RETURN(const auto resolved, Resolve(names));
  return InKernelOrder(resolved);
}

StatusOr<std::vector<std::string>> ContainerCapabilities(const std::vector<std::string>& add,
                                                         const std::vector<std::string>& drop) {
  const auto is_all = [](const std::string& name) { return absl::EqualsIgnoreCase(name, "ALL"); };
  std::set<std::string> result = DefaultCapabilities();
  if (std::any_of(drop.begin(), drop.end(), is_all)) result.clear();
  HUSK_ASSIGN_OR_RETURN(const auto added, Resolve(add));
  result.insert(added.begin(), added.end());
  std::vector<std::string> dropped_by_name;
  std::copy_if(drop.begin(), drop.end(), std::back_inserter(dropped_by_name), std::not_fn(is_all));
  HUSK_ASSIGN_OR_RETURN(const auto dropped, Resolve(dropped_by_name));
  for (const auto& name : dropped) result.erase(name);
  return InKernelOrder(result);
}

}  // namespace husk::sandbox
