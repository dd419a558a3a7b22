#include "sandbox/oci/seccomp_profile.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sandbox/oci/capabilities.h"
#include "sandbox/oci/seccomp_groups.h"

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;
using testing::Contains;
using testing::Not;

std::vector<std::string> UsualCapabilities() {
  return *ContainerCapabilities({}, {});
}

// As crun makes a filter of it.
class Filter {
 public:
  explicit Filter(const Json& profile)
      : context_(seccomp_init(SCMP_ACT_ERRNO(profile["defaultErrnoRet"].get<std::uint16_t>()))) {
    EXPECT_EQ(seccomp_arch_add(context_, SCMP_ARCH_X86), 0);
    for (const Json& rule : profile["syscalls"]) {
      const std::uint32_t action =
          rule["action"] == "SCMP_ACT_ALLOW" ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(rule["errnoRet"].get<std::uint16_t>());
      std::vector<scmp_arg_cmp> arguments;
      for (const Json& argument : rule.value("args", Json::array())) {
        EXPECT_EQ(argument["op"], "SCMP_CMP_MASKED_EQ");
        arguments.push_back({.arg = argument["index"].get<unsigned>(),
                             .op = SCMP_CMP_MASKED_EQ,
                             .datum_a = argument["value"].get<std::uint64_t>(),
                             .datum_b = argument["valueTwo"].get<std::uint64_t>()});
      }
      for (const std::string name : rule["names"]) {
        const int call = seccomp_syscall_resolve_name(name.c_str());
        EXPECT_EQ(
            seccomp_rule_add_array(context_, action, call, static_cast<unsigned>(arguments.size()), arguments.data()),
            0)
            << name;
      }
    }
  }
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;
  ~Filter() { seccomp_release(context_); }

  // What `attempt` returns, 0 or an errno, in a process with the filter.
  int Try(const std::function<int()>& attempt) const {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      if (seccomp_load(context_) != 0) _exit(255);
      _exit(attempt());
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
  }

 private:
  scmp_filter_ctx context_;
};

// A system call's errno, or 0.
int Errno(std::int64_t result) {
  return result < 0 ? errno : 0;
}

int TryClone(std::uint64_t flags) {
  const auto child = syscall(SYS_clone, flags | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (child == 0) _exit(0);
  if (child > 0) waitpid(static_cast<pid_t>(child), nullptr, 0);
  return Errno(child);
}

std::set<std::string> NamesWith(const Json& profile, const std::string& action) {
  std::set<std::string> names;
  for (const Json& rule : profile["syscalls"]) {
    if (rule["action"] == action && !rule.contains("args")) names.insert(rule["names"].begin(), rule["names"].end());
  }
  return names;
}

TEST(SeccompProfile, EveryNameIsKnownToLibseccomp) {
  for (const auto& capabilities : {std::vector<std::string>(), AllCapabilities()}) {
    const Json profile = DefaultSeccompProfile(capabilities);
    for (const Json& rule : profile["syscalls"]) {
      for (const std::string name : rule["names"]) {
        EXPECT_NE(seccomp_syscall_resolve_name(name.c_str()), __NR_SCMP_ERROR) << name;
      }
    }
  }
}

TEST(SeccompProfile, NoNameIsInTwoPlaces) {
  std::map<std::string, int> places;
  for (const std::string& name : SeccompAllowed()) ++places[name];
  for (const std::string& name : SeccompRefused()) ++places[name];
  std::set<std::string> kept;
  for (const auto& [capability, names] : SeccompOfCapabilities()) {
    EXPECT_THAT(AllCapabilities(), Contains(capability));
    kept.insert(names.begin(), names.end());
  }
  for (const std::string& name : kept) ++places[name];
  for (const char* conditional : {"clone", "clone3", "personality", "socket"}) ++places[conditional];
  for (const auto& [name, count] : places) EXPECT_EQ(count, 1) << name;
}

// Whatever libseccomp knows of x86-64 and this profile does not name: found by nobody, or new.
TEST(SeccompProfile, EveryCallOfTheGuestsKernelIsPlaced) {
  const Json profile = DefaultSeccompProfile({});
  std::set<std::string> placed = NamesWith(profile, "SCMP_ACT_ALLOW");
  placed.merge(NamesWith(profile, "SCMP_ACT_ERRNO"));
  placed.insert({"clone", "clone3", "personality", "socket"});
  // In the table of calls only: the kernel itself has none of them.
  const std::set<std::string> gone = {"_sysctl", "afs_syscall",  "create_module", "get_kernel_syms", "getpmsg",
                                      "putpmsg", "query_module", "security",      "tuxcall",         "vserver"};
  constexpr int kLastOfLinux61 = 450;
  for (int call = 0; call <= kLastOfLinux61; ++call) {
    char* const name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, call);
    if (name == nullptr) continue;
    EXPECT_TRUE(placed.contains(name) || gone.contains(name)) << name;
    free(name);  // NOLINT: libseccomp's by malloc
  }
}

TEST(SeccompProfile, CapabilitiesOpenTheirCalls) {
  const auto allowed = [](const std::vector<std::string>& capabilities) {
    return NamesWith(DefaultSeccompProfile(capabilities), "SCMP_ACT_ALLOW");
  };
  for (const char* name : {"mount", "bpf", "chroot", "reboot", "clone3", "perf_event_open", "syslog"}) {
    EXPECT_THAT(allowed({}), Not(Contains(name)));
  }
  EXPECT_THAT(allowed(UsualCapabilities()), Contains("chroot"));
  EXPECT_THAT(allowed({"CAP_BPF"}), Contains("bpf"));
  EXPECT_THAT(allowed({"CAP_BPF"}), Not(Contains("perf_event_open")));
  EXPECT_THAT(allowed({"CAP_PERFMON"}), Contains("perf_event_open"));
  EXPECT_THAT(allowed({"CAP_SYSLOG"}), Contains("syslog"));
  for (const char* name : {"mount", "bpf", "clone", "clone3", "perf_event_open", "syslog", "unshare"}) {
    EXPECT_THAT(allowed({"CAP_SYS_ADMIN"}), Contains(name));
  }
  // To nobody.
  for (const char* name : {"keyctl", "io_uring_setup", "kexec_load", "userfaultfd"}) {
    EXPECT_THAT(allowed(AllCapabilities()), Not(Contains(name)));
  }
}

TEST(SeccompProfile, TheKernelTakesIt) {
  const Filter filter(DefaultSeccompProfile(UsualCapabilities()));
  EXPECT_EQ(filter.Try([] { return Errno(open("/", O_RDONLY | O_CLOEXEC)); }), 0);
  EXPECT_EQ(filter.Try([] { return Errno(unshare(CLONE_NEWUSER)); }), EPERM);
  EXPECT_EQ(filter.Try([] { return Errno(syscall(SYS_mount, nullptr, nullptr, nullptr, 0, nullptr)); }), EPERM);
  EXPECT_EQ(filter.Try([] { return Errno(syscall(SYS_keyctl, 0, 0, 0, 0, 0)); }), EPERM);
  EXPECT_EQ(filter.Try([] { return Errno(syscall(SYS_bpf, 0, nullptr, 0)); }), EPERM);
  EXPECT_EQ(filter.Try([] { return Errno(syscall(SYS_io_uring_setup, 1, nullptr)); }), EPERM);
  // Of a kernel to come.
  EXPECT_EQ(filter.Try([] { return Errno(syscall(1000)); }), ENOSYS);
}

TEST(SeccompProfile, CloneMakesNoNamespaces) {
  const Filter filter(DefaultSeccompProfile(UsualCapabilities()));
  EXPECT_EQ(filter.Try([] { return TryClone(0); }), 0);
  for (const std::uint64_t flag :
       {CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET}) {
    EXPECT_EQ(filter.Try([&] { return TryClone(flag); }), EPERM) << flag;
  }
  EXPECT_EQ(filter.Try([] { return TryClone(CLONE_NEWUSER | CLONE_NEWNET); }), EPERM);
  EXPECT_EQ(filter.Try([] { return Errno(syscall(SYS_clone3, nullptr, 0)); }), ENOSYS);
  const Filter administrator(DefaultSeccompProfile({"CAP_SYS_ADMIN"}));
  EXPECT_EQ(administrator.Try([] { return Errno(syscall(SYS_clone3, nullptr, 0)); }), EINVAL);
}

TEST(SeccompProfile, SocketsByTheirFamily) {
  const Filter filter(DefaultSeccompProfile(AllCapabilities()));
  const auto attempt = [&](std::int64_t family) {
    return filter.Try([family] { return Errno(syscall(SYS_socket, family, SOCK_DGRAM, 0)); });
  };
  EXPECT_EQ(attempt(AF_UNIX), 0);
  for (const std::int64_t family : {AF_ALG, AF_VSOCK}) {
    EXPECT_EQ(attempt(family), ENOSYS);
    // The kernel takes 32 bits of it; the filter sees 64.
    EXPECT_EQ(attempt(family | (std::int64_t{1} << 40)), ENOSYS);
  }
  // The kernel's answer, not the filter's: it got there.
  for (const int family : {33, 37, 39, 41, 43, 45, 50}) {
    EXPECT_THAT(attempt(family), testing::AnyOf(0, EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EINVAL)) << family;
  }
}

TEST(SeccompProfile, PersonalitiesOfToday) {
  const Filter filter(DefaultSeccompProfile(AllCapabilities()));
  EXPECT_EQ(filter.Try([] { return Errno(syscall(SYS_personality, 0xffffffffU)); }), 0);
  EXPECT_EQ(filter.Try([] { return Errno(syscall(SYS_personality, PER_LINUX)); }), 0);
  EXPECT_EQ(filter.Try([] { return Errno(syscall(SYS_personality, PER_LINUX32)); }), 0);
  EXPECT_EQ(filter.Try([] { return Errno(syscall(SYS_personality, 0x0400000UL /* READ_IMPLIES_EXEC */)); }), ENOSYS);
}

}  // namespace
}  // namespace husk::sandbox
