#include "agent/guest/sandbox.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <linux/reboot.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "agent/guest/files.h"
#include "agent/guest/network.h"
#include "agent/guest/retry.h"
#include "agent/guest/scsi_disk.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

constexpr std::uint64_t kDefaultShm = std::uint64_t{64} << 20;
constexpr std::size_t kMaximumHostname = 64;

// Equal for equal content, whatever the order of maps.
std::string Canonical(const v1::SandboxConfig& config) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  config.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

bool HasLineBreak(const std::string& text) {
  return text.find('\n') != std::string::npos || text.find('\0') != std::string::npos;
}

}  // namespace

std::string ResolvConf(const v1::SandboxConfig& config) {
  std::string text;
  if (config.dns_searches_size() > 0)
    absl::StrAppend(&text, "search ", absl::StrJoin(config.dns_searches(), " "), "\n");
  for (const auto& server : config.dns_servers()) absl::StrAppend(&text, "nameserver ", server, "\n");
  if (config.dns_options_size() > 0) absl::StrAppend(&text, "options ", absl::StrJoin(config.dns_options(), " "), "\n");
  return text;
}

std::string Hosts(const v1::SandboxConfig& config) {
  std::string text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
  if (config.hostname().empty()) return text;
  // The pod is known by the addresses of its first interface.
  if (config.interfaces_size() == 0 || config.interfaces(0).addresses_size() == 0) {
    absl::StrAppend(&text, "127.0.1.1\t", config.hostname(), "\n");
    return text;
  }
  for (const auto& address : config.interfaces(0).addresses()) {
    absl::StrAppend(&text, address.substr(0, address.find('/')), "\t", config.hostname(), "\n");
  }
  return text;
}

StatusOr<std::string> SysctlPath(const std::string& name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.' || c == '/' || c == ':';
  };
  // The first separator says what separates; the other is a part of a name (an interface's, say), in which a slash
  // stands for the dot.
  const std::size_t first = name.find_first_of("./");
  const bool dotted = first != std::string::npos && name[first] == '.';
  const std::string path = dotted ? absl::StrReplaceAll(name, {{".", "/"}, {"/", "."}}) : name;
  for (const std::string_view part : Split(path, '/')) {
    if (part.empty() || part == "." || part == ".." || !std::all_of(part.begin(), part.end(), good)) {
      return absl::InvalidArgumentError(absl::StrCat("not a sysctl: ", name));
    }
  }
  return absl::StrCat("/proc/sys/", path);
}

VirtualMachine::VirtualMachine(EventLoop& loop, std::string pod_files, std::string scratch)
    : loop_(loop), pod_files_(std::move(pod_files)), scratch_(std::move(scratch)) {}

void VirtualMachine::ConfigureSandbox(const v1::SandboxConfig& config, std::function<void(Status)> done) {
  const std::string canonical = Canonical(config);
  if ((running_ || done_) && canonical != configured_) {
    return done(absl::FailedPreconditionError("the sandbox is configured otherwise"));
  }
  if (done_) return done(absl::OkStatus());
  waiters_.Add(std::move(done));
  if (running_) return;
  running_ = true;
  configured_ = canonical;
  const auto finish = [this](const Status& status) {
    running_ = false;
    done_ = status.ok();
    waiters_.Answer(status);
  };
  if (const Status status = ConfigureAll(config); !status.ok()) return finish(status);
  Retry(loop_, kDiskPatience, [this, lun = config.scratch_lun()] { return MountScratch(lun); }, finish);
}

Status VirtualMachine::ConfigureAll(const v1::SandboxConfig& config) {
  const std::string& hostname = config.hostname();
  if (hostname.size() > kMaximumHostname || HasLineBreak(hostname)) {
    return absl::InvalidArgumentError("the hostname is longer than 64 bytes or has a line break");
  }
  if (!hostname.empty() && sethostname(hostname.data(), hostname.size()) != 0) return ErrnoStatus(errno, "sethostname");
  for (const auto* list : {&config.dns_servers(), &config.dns_searches(), &config.dns_options()}) {
    if (std::any_of(list->begin(), list->end(), HasLineBreak)) {
      return absl::InvalidArgumentError("a DNS entry has a line break");
    }
  }
  HUSK_RETURN_IF_ERROR(ConfigureInterfaces({config.interfaces().begin(), config.interfaces().end()}));
  for (const auto& [name, value] : config.sysctls()) {
    HUSK_ASSIGN_OR_RETURN(const std::string path, SysctlPath(name));
    HUSK_RETURN_IF_ERROR_DOING(WriteFile(path, value), absl::StrCat("sysctl ", name));
  }
  HUSK_RETURN_IF_ERROR(WritePodFiles(config));
  return MountShm(config);
}

Status VirtualMachine::WritePodFiles(const v1::SandboxConfig& config) {
  HUSK_RETURN_IF_ERROR(CreateFile(pod_files_ + "/resolv.conf", ResolvConf(config), 0644));
  HUSK_RETURN_IF_ERROR(CreateFile(pod_files_ + "/hosts", Hosts(config), 0644));
  return CreateFile(pod_files_ + "/hostname", config.hostname() + "\n", 0644);
}

Status VirtualMachine::MountShm(const v1::SandboxConfig& config) {
  const std::string path = pod_files_ + "/shm";
  HUSK_RETURN_IF_ERROR(MakeDirectories(path, 0755));
  if (IsMountPoint(path)) umount2(path.c_str(), MNT_DETACH);
  const std::uint64_t size = config.shm_size_bytes() == 0 ? kDefaultShm : config.shm_size_bytes();
  const std::string options = absl::StrCat("mode=1777,size=", size);
  if (mount("shm", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options.c_str()) != 0) {
    return ErrnoStatus(errno, "mount the pod's /dev/shm");
  }
  return absl::OkStatus();
}

Status VirtualMachine::MountScratch(std::uint32_t lun) {
  if (IsMountPoint(scratch_)) return absl::OkStatus();
  auto disk = FindScsiDisk(lun);
  if (!disk.ok()) return absl::FailedPreconditionError(absl::StrCat("scratch disk: ", disk.status().message()));
  HUSK_RETURN_IF_ERROR(MakeDirectories(scratch_, 0700));
  // Nothing on it outlives the pod: no barriers, no waiting for writes that a crash would lose.
  if (mount(disk->c_str(), scratch_.c_str(), "ext4", MS_NODEV | MS_NOATIME, "nobarrier,discard") != 0) {
    return absl::FailedPreconditionError(ErrnoStatus(errno, absl::StrCat("mount ext4 from ", *disk)).message());
  }
  return absl::OkStatus();
}

void VirtualMachine::PowerOff() {
  sync();
  umount2(scratch_.c_str(), MNT_DETACH);
  sync();
  reboot(LINUX_REBOOT_CMD_POWER_OFF);
  std::perror("husk-agent: reboot");
}

}  // namespace husk::agent
