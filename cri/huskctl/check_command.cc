#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "agent/common/subprocess.h"
#include "agent/common/unique_fd.h"
#include "cri/config/config.h"
#include "cri/config/installation.h"
#include "cri/huskctl/commands.h"
#include "cri/huskctl/support.h"
#include "hypervisor/qemu/qemu_hypervisor.h"

namespace husk::huskctl {

namespace {

enum class Verdict { kOk, kWarn, kFail };

struct Finding {
  Verdict verdict = Verdict::kOk;
  std::string subject;
  std::string what;
  std::string remedy;  // empty if OK
};

const char* Name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "OK";
    case Verdict::kWarn:
      return "WARN";
    case Verdict::kFail:
      return "FAIL";
  }
  return "";
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

Finding CheckUser() {
  if (geteuid() == 0) return {.subject = "user", .what = "root"};
  return {Verdict::kFail, "user", "not root", "run huskd (and this check) as root"};
}

Finding CheckAccelerator(const cri::Config& config) {
  if (config.vm.accelerator == cri::AcceleratorChoice::kTcg) {
    return {Verdict::kWarn, "accelerator", "TCG, as configured", "set vm.accelerator: auto to use KVM where it works"};
  }
  const hypervisor::AcceleratorProbe probe = hypervisor::ProbeAccelerator();
  if (probe.accelerator == hypervisor::Accelerator::kKvm) {
    return {.subject = "accelerator", .what = "KVM: " + probe.reason};
  }
  const Verdict verdict = config.vm.accelerator == cri::AcceleratorChoice::kKvm ? Verdict::kFail : Verdict::kWarn;
  return {verdict, "accelerator", "TCG (slow): " + probe.reason,
          "use a host with VT-x or AMD-V; in a virtual machine, switch nested virtualisation on"};
}

Finding CheckQemu(const cri::Config& config) {
  const std::string remedy = "install qemu-system-x86, or set vm.qemu";
  if (access(config.vm.qemu.c_str(), X_OK) != 0) {
    return {Verdict::kFail, "qemu", config.vm.qemu + " cannot be executed", remedy};
  }
  const auto result =
      RunSubprocess(Context::Background().WithTimeout(std::chrono::seconds(30)),
                    {.argv = {config.vm.qemu, "--version"}, .environment = std::nullopt, .standard_input = ""});
  if (!result.ok() || result->exit_code != 0) {
    return {Verdict::kFail, "qemu", config.vm.qemu + " --version fails", remedy};
  }
  return {.subject = "qemu",
          .what = absl::StrCat(config.vm.qemu, ": ",
                               result->standard_output.substr(0, result->standard_output.find('\n')))};
}

Finding CheckInstallation(cri::Config config) {
  const StatusOr<std::string> here = cri::ExecutableDirectory();
  const Status complete = here.ok() ? cri::CompleteInstallation(*here, &config) : here.status();
  if (!complete.ok()) {
    return {Verdict::kFail, "guest image", std::string(complete.message()),
            "build it, or name it in the configuration"};
  }
  return {.subject = "guest image",
          .what = absl::StrCat(config.vm.kernel, ", ", config.vm.initrd, ", ", config.vm.launcher)};
}

Finding CheckTun() {
  const UniqueFd tun(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (tun.valid()) return {.subject = "tap devices", .what = "/dev/net/tun opens"};
  return {Verdict::kFail, "tap devices", "/dev/net/tun: " + std::generic_category().message(errno),
          "load the module tun (modprobe tun)"};
}

Finding CheckPlugins(const cri::Config& config) {
  std::vector<std::string> missing;
  std::string place;
  for (const char* plugin : {"bridge", "host-local", "portmap"}) {
    bool found = false;
    for (const std::string& directory : config.network.plugin_directories) {
      if (access((directory + "/" + plugin).c_str(), X_OK) != 0) continue;
      found = true;
      place = directory;
    }
    if (!found) missing.emplace_back(plugin);
  }
  if (missing.empty()) return {.subject = "CNI plugins", .what = place};
  return {Verdict::kFail, "CNI plugins",
          absl::StrCat(absl::StrJoin(missing, ", "), " not found in ",
                       absl::StrJoin(config.network.plugin_directories, ", ")),
          "install containernetworking-plugins, or set network.cni_plugin_directories"};
}

Finding CheckNetworkConfiguration(const cri::Config& config) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(config.network.configuration_directory, error)) {
    const std::string extension = entry.path().extension();
    if (extension == ".conf" || extension == ".conflist" || extension == ".json") {
      return {.subject = "CNI configuration", .what = entry.path()};
    }
  }
  if (!config.network.default_bridge.empty()) {
    return {.subject = "CNI configuration",
            .what = absl::StrCat("none in ", config.network.configuration_directory, ": Husk's own bridge ",
                                 config.network.default_bridge, ", ", config.network.default_subnet)};
  }
  return {Verdict::kFail, "CNI configuration", "none in " + config.network.configuration_directory,
          "install a network plugin, or set network.default_bridge"};
}

Finding CheckCgroups() {
  if (Exists("/sys/fs/cgroup/cgroup.controllers")) return {.subject = "cgroups", .what = "version 2"};
  if (Exists("/sys/fs/cgroup/memory") && Exists("/sys/fs/cgroup/cpu")) {
    return {.subject = "cgroups", .what = "version 1"};
  }
  return {Verdict::kWarn, "cgroups", "no memory and cpu controllers below /sys/fs/cgroup",
          "mount cgroup2 at /sys/fs/cgroup; without it pods have no limits on the host"};
}

Finding CheckSpace(const cri::Config& config) {
  constexpr std::uint64_t kWanted = std::uint64_t{2} << 30;
  // The root directory is made at the first start: its nearest ancestor tells.
  std::filesystem::path place = config.root;
  while (!Exists(place) && place.has_relative_path()) place = place.parent_path();
  struct statvfs usage{};
  if (statvfs(place.c_str(), &usage) != 0) {
    return {Verdict::kFail, "disk space", place.string() + ": " + std::generic_category().message(errno),
            "choose another root"};
  }
  const std::uint64_t free = std::uint64_t{usage.f_bavail} * usage.f_frsize;
  const std::string what = absl::StrCat(ReadableBytes(free), " free for ", config.root);
  if (free >= kWanted) return {.subject = "disk space", .what = what};
  return {Verdict::kWarn, "disk space", what, "make room, or choose another root: images and scratch disks lie there"};
}

Finding CheckUsers(const cri::Config& config) {
  const std::uint64_t first = config.vm.first_user;
  const std::uint64_t last = first + config.vm.user_count - 1;
  const std::string range = absl::StrCat(first, "-", last);
  for (const char* file : {"/etc/passwd", "/etc/group"}) {
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
      // name:password:id:...
      const std::size_t second = line.find(':', line.find(':') + 1);
      if (second == std::string::npos) continue;
      const std::uint64_t id = std::strtoull(line.c_str() + second + 1, nullptr, 10);
      if (id < first || id > last) continue;
      return {Verdict::kFail, "user ids", absl::StrCat(range, ", of which ", id, " belongs to somebody in ", file),
              "set vm.first_user to the beginning of a free range"};
    }
  }
  return {.subject = "user ids", .what = range + " are free for QEMU"};
}

Finding CheckModules() {
  // tc's redirect needs these; built in or loadable cannot be told without trying, so only what is surely absent warns.
  if (Exists("/proc/sys/net/ipv4/ip_forward"))
    return {.subject = "network stack", .what = "IPv4 forwarding can be set"};
  return {Verdict::kFail, "network stack", "/proc/sys/net/ipv4/ip_forward is missing",
          "use a kernel with IPv4 routing"};
}

}  // namespace

StatusOr<int> Check(const std::string& config_file, bool json) {
  HUSK_ASSIGN_OR_RETURN(
      const cri::Config config,
      cri::LoadConfig(config_file.empty() ? cri::kDefaultConfigFile : config_file, !config_file.empty()));
  HUSK_RETURN_IF_ERROR(cri::CheckConfig(config));
  const std::vector<Finding> findings = {
      CheckUser(),    CheckAccelerator(config), CheckQemu(config),    CheckInstallation(config),
      CheckTun(),     CheckModules(),           CheckPlugins(config), CheckNetworkConfiguration(config),
      CheckCgroups(), CheckSpace(config),       CheckUsers(config)};
  int exit_code = 0;
  nlohmann::json list = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows;
  for (const Finding& finding : findings) {
    if (finding.verdict == Verdict::kFail) exit_code = 1;
    list.push_back({{"verdict", Name(finding.verdict)},
                    {"subject", finding.subject},
                    {"what", finding.what},
                    {"remedy", finding.remedy}});
    rows.push_back({Name(finding.verdict), finding.subject, finding.what});
    if (!finding.remedy.empty()) rows.push_back({"", "", "remedy: " + finding.remedy});
  }
  std::fputs(json ? (list.dump(2) + "\n").c_str() : Table(rows).c_str(), stdout);
  return exit_code;
}

}  // namespace husk::huskctl
