#include "sandbox/oci/oci_config.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "agent/common/printable.h"
#include "sandbox/oci/capabilities.h"
#include "sandbox/oci/seccomp_localhost.h"
#include "sandbox/oci/seccomp_profile.h"

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kDefaultCpuPeriod = 100'000;  // microseconds, the kernel's own

constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// JSON is text, and crun reads its configuration as JSON: bytes that are not UTF-8 could only arrive changed.
bool IsUtf8(const std::string& text) {
  const std::string quoted = Json(text).dump(-1, ' ', false, Json::error_handler_t::ignore);
  return Json::parse(quoted).get_ref<const std::string&>() == text;
}

Status CheckText(const std::string& field, const std::string& text) {
  if (text.find('\0') != std::string::npos) return absl::InvalidArgumentError(absl::StrCat(field, " has a NUL byte"));
  if (!IsUtf8(text)) return absl::InvalidArgumentError(absl::StrCat(field, " is not UTF-8, which crun cannot pass on"));
  return absl::OkStatus();
}

Status CheckNamespaces(const NamespaceOptions& namespaces) {
  const auto host = [](const char* name) {
    return absl::InvalidArgumentError(absl::StrCat("linux.security_context.namespace_options.", name,
                                                   ": NODE: a pod in a VM has no namespace of the host"));
  };
  if (namespaces.network == NamespaceMode::kNode) return host("network");
  if (namespaces.pid == NamespaceMode::kNode) return host("pid");
  if (namespaces.ipc == NamespaceMode::kNode) return host("ipc");
  return absl::OkStatus();
}

StatusOr<Json> Arguments(const ContainerConfig& container, const images::ImageRunConfig& image) {
  std::vector<std::string> arguments;
  const auto append = [&](const std::vector<std::string>& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
  };
  // Kubernetes: a command replaces the entrypoint, and the image's command with it.
  append(container.command.empty() ? image.entrypoint : container.command);
  append(container.arguments.empty() && container.command.empty() ? image.command : container.arguments);
  if (arguments.empty() || arguments.front().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("container \"", container.metadata.name,
                                                   "\": no command: neither the configuration nor image ",
                                                   container.image, " has one"));
  }
  for (const auto& argument : arguments) {
    HUSK_RETURN_IF_ERROR(
        CheckText(absl::StrCat("an argument of container \"", container.metadata.name, "\""), argument));
  }
  return Json(arguments);
}

// The image's variables first; a later one of the same name replaces the earlier in its place.
StatusOr<Json> Environment(const ContainerConfig& container, const images::ImageRunConfig& image) {
  std::vector<std::pair<std::string, std::string>> variables;
  const auto set = [&](const std::string& name, const std::string& value) {
    const auto same = std::find_if(variables.begin(), variables.end(), [&](const auto& v) { return v.first == name; });
    if (same != variables.end()) {
      same->second = value;
    } else {
      variables.emplace_back(name, value);
    }
  };
  set("PATH", kDefaultPath);
  for (const auto& entry : image.environment) {
    const auto equals = entry.find('=');
    // What an image says without "=" is no variable; other runtimes leave it out too.
    if (equals == std::string::npos || equals == 0) continue;
    set(entry.substr(0, equals), entry.substr(equals + 1));
  }
  if (container.tty) set("TERM", "xterm");
  for (const auto& [name, value] : container.environment) {
    if (name.empty() || name.find('=') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("environment variable name \"", name, "\" is empty or holds \"=\""));
    }
    set(name, value);
  }
  Json entries = Json::array();
  for (const auto& [name, value] : variables) {
    HUSK_RETURN_IF_ERROR(CheckText(absl::StrCat("the value of environment variable ", name), value));
    HUSK_RETURN_IF_ERROR(CheckText("the name of an environment variable", name));
    entries.push_back(absl::StrCat(name, "=", value));
  }
  return entries;
}

StatusOr<Json> Capabilities(const SecurityContext& security) {
  if (security.privileged) {
    return Json{{"bounding", AllCapabilities()}, {"effective", AllCapabilities()}, {"permitted", AllCapabilities()}};
  }
  HUSK_ASSIGN_OR_RETURN(auto base, ContainerCapabilities(security.add_capabilities, security.drop_capabilities));
  HUSK_ASSIGN_OR_RETURN(const auto ambient, NamedCapabilities(security.add_ambient_capabilities));
  // An ambient capability has to be permitted and inheritable too, and is one that was added, in Kubernetes' words.
  for (const auto& name : ambient) {
    if (std::find(base.begin(), base.end(), name) == base.end()) base.push_back(name);
  }
  Json capabilities{{"bounding", base}, {"effective", base}, {"permitted", base}};
  if (!ambient.empty()) {
    capabilities["inheritable"] = ambient;
    capabilities["ambient"] = ambient;
  }
  return capabilities;
}

// crun enters it while it still has files of the guest open: below /proc, one of them could be named.
Status CheckWorkingDirectory(const std::string& directory) {
  const std::string below = std::filesystem::path(absl::StrCat(directory, "/")).lexically_normal();
  if (!absl::StartsWith(below, "/proc/")) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("working directory \"", Printable(directory, 200), "\" is in /proc, where no program can start"));
}

// What containerd and CRI-O leave a container: many programs spend time on each file they might have open, and some
// break above the 1024 of select(2); those that need more raise it themselves.
Json ResourceLimits() {
  constexpr int kSoftFiles = 1024;
  constexpr int kHardFiles = 524288;
  return Json::array({{{"type", "RLIMIT_NOFILE"}, {"soft", kSoftFiles}, {"hard", kHardFiles}}});
}

StatusOr<Json> Process(const ContainerConfig& container, const images::ImageRunConfig& image) {
  HUSK_ASSIGN_OR_RETURN(auto arguments, Arguments(container, image));
  HUSK_ASSIGN_OR_RETURN(auto environment, Environment(container, image));
  HUSK_ASSIGN_OR_RETURN(auto capabilities, Capabilities(container.security));
  std::string directory = container.working_directory.empty() ? image.working_directory : container.working_directory;
  if (directory.empty()) directory.push_back('/');
  if (directory.front() != '/') {
    return absl::InvalidArgumentError(absl::StrCat("working directory \"", directory, "\" is not absolute"));
  }
  HUSK_RETURN_IF_ERROR(CheckText("the working directory", directory));
  HUSK_RETURN_IF_ERROR(CheckWorkingDirectory(directory));
  return Json{{"args", std::move(arguments)},
              {"env", std::move(environment)},
              {"cwd", std::move(directory)},
              {"terminal", container.tty},
              {"capabilities", std::move(capabilities)},
              {"rlimits", ResourceLimits()},
              {"oomScoreAdj", container.resources.oom_score_adjustment},
              {"noNewPrivileges", container.security.no_new_privileges}};
}

Json Mount(const char* destination, const char* type, const char* source, std::vector<std::string> options) {
  return {{"destination", destination}, {"type", type}, {"source", source}, {"options", std::move(options)}};
}

Json Mounts(bool privileged) {
  const std::string access = privileged ? "rw" : "ro";
  return Json::array({Mount("/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}),
                      Mount("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}),
                      Mount("/dev/pts", "devpts", "devpts",
                            {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}),
                      // The agent puts the pod's shared memory in this one's place.
                      Mount("/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}),
                      Mount("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}),
                      Mount("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", access}),
                      Mount("/sys/fs/cgroup", "cgroup", "cgroup", {"nosuid", "noexec", "nodev", "relatime", access})});
}

Json Limits(const LinuxResources& limits) {
  Json resources = Json::object();
  Json cpu = Json::object();
  if (limits.cpu_shares > 0) cpu["shares"] = limits.cpu_shares;
  if (limits.cpu_quota != 0) cpu["quota"] = limits.cpu_quota;
  // crun takes a lifted quota only together with a period.
  if (limits.cpu_period > 0 || limits.cpu_quota != 0) {
    cpu["period"] = limits.cpu_period > 0 ? limits.cpu_period : kDefaultCpuPeriod;
  }
  if (!limits.cpuset_cpus.empty()) cpu["cpus"] = limits.cpuset_cpus;
  if (!limits.cpuset_mems.empty()) cpu["mems"] = limits.cpuset_mems;
  if (!cpu.empty()) resources["cpu"] = std::move(cpu);
  Json memory = Json::object();
  if (limits.memory_limit_bytes > 0) memory["limit"] = limits.memory_limit_bytes;
  if (limits.memory_swap_limit_bytes != 0) memory["swap"] = limits.memory_swap_limit_bytes;
  if (!memory.empty()) resources["memory"] = std::move(memory);
  if (!limits.unified.empty()) resources["unified"] = limits.unified;
  for (const auto& [size, bytes] : limits.hugepage_limits) {
    resources["hugepageLimits"].push_back({{"pageSize", size}, {"limit", bytes}});
  }
  return resources;
}

Json Resources(const LinuxResources& limits, bool privileged) {
  Json resources = Limits(limits);
  // Everything is denied but the usual harmless devices, which crun adds itself: else root in the container could make
  // a node for the pod's disks.
  resources["devices"] = Json::array({{{"allow", privileged}, {"access", "rwm"}}});
  return resources;
}

// The pod's sysctls that an IPC namespace has for itself, by the names with dots that crun knows.
Json IpcSysctls(const StringMap& sysctls) {
  Json result = Json::object();
  for (const auto& [name, value] : sysctls) {
    const std::string dotted = absl::StrReplaceAll(name, {{"/", "."}});
    if (absl::StartsWith(dotted, "kernel.") || absl::StartsWith(dotted, "fs.mqueue.")) result[dotted] = value;
  }
  return result;
}

Json Linux(const PodConfig& pod, const std::string& container_id, const ContainerConfig& container) {
  // What Kubernetes' runtimes hide by default: windows from /proc and /sys into the kernel.
  static const std::vector<std::string> masked = {
      "/proc/acpi",       "/proc/asound",      "/proc/kcore",       "/proc/keys",    "/proc/latency_stats",
      "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap",
      "/proc/scsi"};
  static const std::vector<std::string> read_only = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                                     "/proc/sysrq-trigger"};
  const SecurityContext& security = container.security;
  Json namespaces = Json::array({{{"type", "mount"}}, {{"type", "cgroup"}}});
  // Those that share one join it in the guest: ContainerSpec says which.
  if (security.namespaces.pid == NamespaceMode::kContainer) namespaces.push_back({{"type", "pid"}});
  // The pod's is the VM's.
  const bool own_ipc = security.namespaces.ipc == NamespaceMode::kContainer;
  if (own_ipc) namespaces.push_back({{"type", "ipc"}});
  Json linux_part{{"namespaces", std::move(namespaces)},
                  {"cgroupsPath", absl::StrCat("/husk/", container_id)},
                  {"resources", Resources(container.resources, security.privileged)}};
  if (own_ipc) linux_part["sysctl"] = IpcSysctls(pod.sysctls);
  if (!security.privileged) {
    linux_part["maskedPaths"] = security.masked_paths.value_or(masked);
    linux_part["readonlyPaths"] = security.readonly_paths.value_or(read_only);
  }
  return linux_part;
}

// Null: no filter. A privileged container never has one, whatever its configuration says.
StatusOr<Json> Seccomp(const SecurityContext& security, const std::vector<std::string>& capabilities,
                       std::string_view localhost_profile) {
  if (security.privileged) return Json();
  switch (security.seccomp.kind) {
    case SeccompKind::kUnconfined:
      return Json();
    case SeccompKind::kRuntimeDefault:
      return DefaultSeccompProfile(capabilities);
    case SeccompKind::kLocalhost:
      break;
  }
  auto profile = ParseSeccompProfile(localhost_profile, capabilities);
  if (profile.ok()) return profile;
  return Annotate(profile.status(), absl::StrCat("linux.security_context.seccomp: ", security.seccomp.path));
}

}  // namespace

StatusOr<std::string> MakeOciConfig(const PodConfig& pod, const std::string& container_id,
                                    const ContainerConfig& container, const images::ImageRunConfig& image,
                                    std::string_view localhost_profile) {
  HUSK_RETURN_IF_ERROR(CheckNamespaces(pod.namespaces));
  HUSK_RETURN_IF_ERROR(CheckNamespaces(container.security.namespaces));
  HUSK_ASSIGN_OR_RETURN(auto process, Process(container, image));
  Json linux_part = Linux(pod, container_id, container);
  HUSK_ASSIGN_OR_RETURN(Json seccomp,
                        Seccomp(container.security, process["capabilities"]["bounding"], localhost_profile));
  if (!seccomp.is_null()) linux_part["seccomp"] = std::move(seccomp);
  const Json config{{"ociVersion", "1.0.2"},
                    {"process", std::move(process)},
                    {"root", {{"path", "rootfs"}, {"readonly", container.security.readonly_root}}},
                    {"mounts", Mounts(container.security.privileged)},
                    {"linux", std::move(linux_part)}};
  // Everything that could be no UTF-8 was checked above, but for paths and cgroup values, which crun refuses by itself.
  return config.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string MakeOciResources(const LinuxResources& resources) {
  return Limits(resources).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace husk::sandbox
