#include "agent/guest/init.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"
#include "agent/guest/files.h"
#include "agent/guest/network.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

constexpr auto kPortPause = std::chrono::milliseconds(5);
constexpr int kPortAttempts = 2000;
constexpr rlim_t kDescriptors = 32'768;

struct Mount {
  const char* type;
  const char* target;
  unsigned long flags;
  const char* options;
};

constexpr unsigned long kSafe = MS_NOSUID | MS_NODEV | MS_NOEXEC;

constexpr Mount kMounts[] = {
    {"proc", "/proc", kSafe, nullptr},
    {"sysfs", "/sys", kSafe, nullptr},
    {"devtmpfs", "/dev", MS_NOSUID, "mode=755"},
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=666,mode=620,gid=5"},
    {"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"mqueue", "/dev/mqueue", kSafe, nullptr},
    {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"},
    {"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"cgroup2", "/sys/fs/cgroup", kSafe, "nsdelegate"},
};

// The initramfs cannot be pivoted away from, which crun does; a mount on top of it can.
Status MakeRootPivotable() {
  HUSK_RETURN_IF_ERROR(MakeDirectories("/sysroot", 0755));
  if (mount("/", "/sysroot", nullptr, MS_BIND, nullptr) != 0) return ErrnoStatus(errno, "bind the root");
  if (chdir("/sysroot") != 0) return ErrnoStatus(errno, "chdir /sysroot");
  if (mount(".", "/", nullptr, MS_MOVE, nullptr) != 0) return ErrnoStatus(errno, "move the root");
  if (chroot(".") != 0) return ErrnoStatus(errno, "chroot");
  if (chdir("/") != 0) return ErrnoStatus(errno, "chdir /");
  return absl::OkStatus();
}

Status MountAll() {
  for (const Mount& entry : kMounts) {
    HUSK_RETURN_IF_ERROR(MakeDirectories(entry.target, 0755));
    if (mount(entry.type, entry.target, entry.type, entry.flags, entry.options) != 0) {
      return ErrnoStatus(errno, absl::StrCat("mount ", entry.target));
    }
  }
  return absl::OkStatus();
}

Status LoadModules(const std::string& module_list) {
  HUSK_ASSIGN_OR_RETURN(const std::string listed, ReadFile(module_list));
  for (const std::string_view line : SplitWords(listed, '\n')) {
    const std::string path(line);
    const UniqueFd module(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!module.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
    if (syscall(SYS_finit_module, module.get(), "", 0) != 0 && errno != EEXIST) {
      // One that this machine cannot use need not stop it; what then is missing will be told by its user.
      std::fprintf(stderr, "husk-agent: %s\n", ErrnoStatus(errno, absl::StrCat("load ", path)).ToString().c_str());
    }
  }
  return absl::OkStatus();
}

Status DelegateControllers() {
  HUSK_ASSIGN_OR_RETURN(const std::string controllers, ReadFile("/sys/fs/cgroup/cgroup.controllers", 4096));
  HUSK_RETURN_IF_ERROR(MakeDirectories("/sys/fs/cgroup/husk", 0755));
  for (const std::string_view controller : Split(Trim(controllers), ' ')) {
    for (const char* directory : {"/sys/fs/cgroup", "/sys/fs/cgroup/husk"}) {
      // Not every controller can be delegated (cpu, when there are real-time threads); the others shall be.
      WriteFile(absl::StrCat(directory, "/cgroup.subtree_control"),
                absl::StrCat("+", absl::string_view(controller.data(), controller.size())))
          .IgnoreError();
    }
  }
  return absl::OkStatus();
}

// Each connection that is forwarded into the pod takes one. Containers have limits of their own.
void AllowDescriptors() {
  const rlimit descriptors{.rlim_cur = kDescriptors, .rlim_max = kDescriptors};
  if (setrlimit(RLIMIT_NOFILE, &descriptors) != 0) {
    std::fprintf(stderr, "husk-agent: %s\n", ErrnoStatus(errno, "allow more descriptors").ToString().c_str());
  }
}

std::string FindPort(const std::string& name) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/virtio-ports", error)) {
    const auto port_name = ReadFile((entry.path() / "name").string(), 256);
    if (port_name.ok() && Trim(*port_name) == name) {
      return absl::StrCat("/dev/", entry.path().filename().string());
    }
  }
  return "";
}

}  // namespace

Status SetUpGuest(const std::string& module_list) {
  umask(022);
  AllowDescriptors();
  HUSK_RETURN_IF_ERROR(MakeRootPivotable());
  HUSK_RETURN_IF_ERROR(MountAll());
  HUSK_RETURN_IF_ERROR(LoadModules(module_list));
  HUSK_RETURN_IF_ERROR(DelegateControllers());
  // Memory that is plugged in later is used at once, and as much of it as the kernel can bear only for what can be
  // moved, so that it can be taken out again. A kernel without that choice uses it for everything.
  WriteFile("/sys/module/memory_hotplug/parameters/online_policy", "auto-movable").IgnoreError();
  // As the kubelet has it on a node. Memory that is promised may come later, by a resize.
  WriteFile("/proc/sys/vm/overcommit_memory", "1").IgnoreError();
  WriteFile("/sys/devices/system/memory/auto_online_blocks", "online").IgnoreError();
  return LoopbackUp();
}

StatusOr<UniqueFd> OpenPort(const std::string& name) {
  for (int attempt = 0; attempt < kPortAttempts; ++attempt) {
    if (const std::string path = FindPort(name); !path.empty()) {
      UniqueFd port(open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
      if (port.valid()) return port;
      if (errno != ENOENT) return ErrnoStatus(errno, absl::StrCat("open ", path));
    }
    std::this_thread::sleep_for(kPortPause);
  }
  return absl::NotFoundError(absl::StrCat("the VM has no virtio-serial port ", name));
}

}  // namespace husk::agent
