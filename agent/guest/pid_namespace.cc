#include "agent/guest/pid_namespace.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::agent {
namespace {

// Kubernetes' own for a pod's first process: nobody else's.
constexpr uid_t kUser = 65535;

StatusOr<pid_t> StartPodInit() {
  // Not clone() of the C library, which would want a stack: this process has one thread, and the child goes on at once.
  const auto pid =
      static_cast<pid_t>(syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  if (pid < 0) return ErrnoStatus(errno, "clone the pod's first process");
  if (pid > 0) return pid;
  // Everything else of the agent is closed by this.
  std::array<char, 16> name{"husk-pod-init"};
  std::array<char, 16> argument{};
  std::char_traits<char>::copy(argument.data(), kPodInitArgument, std::char_traits<char>::length(kPodInitArgument));
  std::array<char*, 3> argv{name.data(), argument.data(), nullptr};
  std::array<char*, 1> environment{nullptr};
  execve("/proc/self/exe", argv.data(), environment.data());
  _exit(127);
}

Status EnterEmptyRoot() {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return ErrnoStatus(errno, "make mounts private");
  if (mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=2,mode=555") != 0) {
    return ErrnoStatus(errno, "mount an empty root");
  }
  if (chdir("/tmp") != 0) return ErrnoStatus(errno, "chdir to the empty root");
  // The old root lies on the new one for a moment.
  if (syscall(SYS_pivot_root, ".", ".") != 0) return ErrnoStatus(errno, "pivot_root");
  if (umount2(".", MNT_DETACH) != 0) return ErrnoStatus(errno, "unmount the old root");
  if (mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
    return ErrnoStatus(errno, "make the empty root read-only");
  }
  return chdir("/") == 0 ? absl::OkStatus() : ErrnoStatus(errno, "chdir /");
}

Status DropPrivileges() {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return ErrnoStatus(errno, "no_new_privs");
  const gid_t group = kUser;
  if (syscall(SYS_setgroups, 1, &group) != 0 || setresgid(kUser, kUser, kUser) != 0 ||
      setresuid(kUser, kUser, kUser) != 0) {
    return ErrnoStatus(errno, "become nobody");
  }
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> none{};
  if (syscall(SYS_capset, &header, none.data()) != 0) return ErrnoStatus(errno, "drop capabilities");
  return absl::OkStatus();
}

}  // namespace

StatusOr<PidNamespace> PidNamespace::Of(pid_t pid) {
  UniqueFd file(open(absl::StrCat("/proc/", pid, "/ns/pid").c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("open the PID namespace of process ", pid));
  return PidNamespace(std::move(file));
}

std::string PidNamespace::path() const {
  return absl::StrCat("/proc/", getpid(), "/fd/", file_.get());
}

StatusOr<std::string> PodPidNamespace::Path() {
  if (!namespace_) {
    HUSK_ASSIGN_OR_RETURN(const pid_t pid, StartPodInit());
    children_.Await(pid, [this](int /*exit_code*/) { namespace_.reset(); });
    HUSK_ASSIGN_OR_RETURN(namespace_, PidNamespace::Of(pid));
  }
  return namespace_->path();
}

Status RunPodInit() {
  HUSK_RETURN_IF_ERROR(EnterEmptyRoot());
  HUSK_RETURN_IF_ERROR(DropPrivileges());
  prctl(PR_SET_NAME, "husk-pod-init", 0, 0, 0);
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  sigprocmask(SIG_BLOCK, &children, nullptr);
  for (;;) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    int signal = 0;
    sigwait(&children, &signal);
  }
}

}  // namespace husk::agent
