#include "hypervisor/qemu/launcher/steps.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string_view>

namespace husk::hypervisor::launcher {
namespace {

// A pod of 255 disks of many layers stays below this: two descriptors per extent.
constexpr rlim_t kMaximumDescriptors = 65536;
constexpr rlim_t kMaximumFilesServed = 1'000'000;
constexpr int kFailed = 125;

std::string ReadSmallFile(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) Fail(std::string("open ") + path, errno);
  std::array<char, 4096> buffer{};
  const ssize_t count = read(fd, buffer.data(), buffer.size());
  if (count < 0) Fail(std::string("read ") + path, errno);
  close(fd);
  return {buffer.data(), static_cast<std::size_t>(count)};
}

void WriteAll(int fd, std::string_view text, const std::string& doing) {
  while (!text.empty()) {
    const ssize_t count = write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) Fail(doing, errno);
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

// Field 22 of /proc/self/stat. The name in field 2 may hold blanks and brackets, so count from its last bracket.
std::string OwnStartTime() {
  const std::string stat = ReadSmallFile("/proc/self/stat");
  auto position = stat.rfind(')');
  for (int field = 3; field <= 22 && position != std::string::npos; ++field) position = stat.find(' ', position + 1);
  if (position == std::string::npos) Fail("find the start time in /proc/self/stat", 0);
  return stat.substr(position + 1, stat.find(' ', position + 1) - position - 1);
}

void DropBoundingSet() {
  for (int capability = 0;; ++capability) {
    if (prctl(PR_CAPBSET_READ, capability) < 0) break;  // beyond the kernel's last one
    if (prctl(PR_CAPBSET_DROP, capability) != 0) Fail("drop the capability bounding set", errno);
  }
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) Fail("clear ambient capabilities", errno);
}

using CapabilitySets = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

void ClearCapabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  CapabilitySets none{};
  if (syscall(SYS_capset, &header, none.data()) != 0) Fail("drop capabilities", errno);
  CapabilitySets left{};
  if (syscall(SYS_capget, &header, left.data()) != 0) Fail("read capabilities", errno);
  for (const auto& set : left) {
    if ((set.effective | set.permitted | set.inheritable) != 0) Fail("capabilities are left", 0);
  }
}

void CheckUser(const Plan& plan) {
  uid_t real_user = 0;
  uid_t effective_user = 0;
  uid_t saved_user = 0;
  gid_t real_group = 0;
  gid_t effective_group = 0;
  gid_t saved_group = 0;
  if (getresuid(&real_user, &effective_user, &saved_user) != 0) Fail("getresuid", errno);
  if (getresgid(&real_group, &effective_group, &saved_group) != 0) Fail("getresgid", errno);
  if (real_user != plan.user || effective_user != plan.user || saved_user != plan.user || real_group != plan.group ||
      effective_group != plan.group || saved_group != plan.group) {
    Fail("the user did not change", 0);
  }
}

// Every id that this process knows, as itself. The lines are "INSIDE OUTSIDE COUNT".
std::string IdentityMap(const char* own_map) {
  std::istringstream lines(ReadSmallFile(own_map));
  std::string result;
  for (std::string inside, outside, count; lines >> inside >> outside >> count;) {
    result += inside + " " + inside + " " + count + "\n";
  }
  return result;
}

void WriteMap(const std::string& path, const std::string& map) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) Fail("open " + path, errno);
  // The kernel takes it in one piece.
  if (write(fd, map.data(), map.size()) != static_cast<ssize_t>(map.size())) Fail("write " + path, errno);
  close(fd);
}

// A child that stays behind in the old user namespace, and maps the parent's new one as soon as it reads a byte.
pid_t StartMapper(const std::array<int, 2>& ready, const std::string& users, const std::string& groups) {
  const std::string process = "/proc/" + std::to_string(getpid());
  const pid_t child = fork();
  if (child < 0) Fail("fork", errno);
  if (child > 0) return child;
  close(ready[1]);
  char byte = 0;
  if (read(ready[0], &byte, 1) != 1) _exit(kFailed);
  WriteMap(process + "/uid_map", users);
  WriteMap(process + "/gid_map", groups);
  _exit(0);
}

}  // namespace

void Fail(const std::string& doing, int error) {
  std::string line = "husk-vm-launcher: " + doing;
  if (error != 0) line += std::string(": ") + strerrordesc_np(error);
  line += '\n';
  // There is nobody to tell if this fails.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
  _exit(kFailed);
}

void WriteIdentity(int state_directory) {
  const std::string identity = "pid=" + std::to_string(getpid()) + "\nstart_time=" + OwnStartTime() +
                               "\nboot_id=" + ReadSmallFile("/proc/sys/kernel/random/boot_id");
  const int fd = openat(state_directory, "identity.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) Fail("create the identity file", errno);
  WriteAll(fd, identity, "write the identity file");
  close(fd);
  if (renameat(state_directory, "identity.new", state_directory, "identity") != 0) {
    Fail("rename the identity file", errno);
  }
}

void WaitForGo(int go) {
  char byte = 'i';
  // A huskd that has gone ends this process by SIGPIPE, which is right.
  if (write(go, &byte, 1) != 1) _exit(kFailed);
  ssize_t count = 0;
  do {
    count = read(go, &byte, 1);
  } while (count < 0 && errno == EINTR);
  if (count != 1) _exit(kFailed);
}

void JoinCgroups(const std::vector<int>& cgroup_procs) {
  const std::string pid = std::to_string(getpid());
  for (const int descriptor : cgroup_procs) WriteAll(descriptor, pid, "join a cgroup");
}

void RaiseOomScore() {
  if (std::strtol(ReadSmallFile("/proc/self/oom_score_adj").c_str(), nullptr, 10) >= 0) return;
  const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) Fail("open oom_score_adj", errno);
  WriteAll(fd, "0", "raise oom_score_adj");
  close(fd);
}

void SetLimits(const Plan& plan) {
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  if (setrlimit(RLIMIT_CORE, &no_core) != 0) Fail("limit core dumps", errno);
  rlimit descriptors{};
  if (getrlimit(RLIMIT_NOFILE, &descriptors) != 0) Fail("getrlimit", errno);
  descriptors.rlim_max = std::min(descriptors.rlim_max, plan.share < 0 ? kMaximumDescriptors : kMaximumFilesServed);
  descriptors.rlim_cur = descriptors.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &descriptors) != 0) Fail("limit descriptors", errno);
}

void EnterNamespaces(const Plan& plan) {
  if (setsid() < 0) Fail("setsid", errno);
  if (plan.new_network_namespace) {
    if (unshare(CLONE_NEWNET) != 0) Fail("make a network namespace", errno);
  } else if (setns(plan.network_namespace, CLONE_NEWNET) != 0) {
    Fail("enter the pod's network namespace", errno);
  }
  if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) != 0) Fail("make namespaces", errno);
  constexpr std::string_view kHostName = "vm";
  if (sethostname(kHostName.data(), kHostName.size()) != 0) Fail("sethostname", errno);
}

void DropPrivileges(const Plan& plan) {
  // For the time until execve; the kernel sets the flag anew then.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) Fail("PR_SET_DUMPABLE", errno);
  DropBoundingSet();
  if (setgroups(plan.supplementary_groups.size(), plan.supplementary_groups.data()) != 0) Fail("setgroups", errno);
  if (setresgid(plan.group, plan.group, plan.group) != 0) Fail("setresgid", errno);
  if (setresuid(plan.user, plan.user, plan.user) != 0) Fail("setresuid", errno);
  ClearCapabilities();
  CheckUser(plan);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) Fail("PR_SET_NO_NEW_PRIVS", errno);
}

void EnterUserNamespace() {
  std::array<int, 2> ready{};
  if (pipe2(ready.data(), O_CLOEXEC) != 0) Fail("pipe", errno);
  if (setgroups(0, nullptr) != 0) Fail("setgroups", errno);
  const std::string users = IdentityMap("/proc/self/uid_map");
  const pid_t mapper = StartMapper(ready, users, IdentityMap("/proc/self/gid_map"));
  if (unshare(CLONE_NEWUSER) != 0) Fail("make a user namespace", errno);
  WriteAll(ready[1], "g", "tell the namespace's mapper");
  close(ready[0]);
  close(ready[1]);
  int status = -1;
  while (waitpid(mapper, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) Fail("map the ids of the user namespace", 0);
  if (IdentityMap("/proc/self/uid_map") != users || getuid() != 0 || getgid() != 0) Fail("the ids did not stay", 0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) Fail("PR_SET_NO_NEW_PRIVS", errno);
}

void CloseAllBut(const std::vector<int>& keep) {
  if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) Fail("close_range", errno);
  for (const int descriptor : keep) {
    if (fcntl(descriptor, F_SETFD, 0) != 0) Fail("keep descriptor " + std::to_string(descriptor), errno);
  }
}

void Become(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  // execve takes char* const[] for historical reasons and does not write.
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  std::array<char*, 1> environment{nullptr};
  umask(077);
  execve(arguments[0], arguments.data(), environment.data());
  Fail("start " + command[0], errno);
}

}  // namespace husk::hypervisor::launcher
