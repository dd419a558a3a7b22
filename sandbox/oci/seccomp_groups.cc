#include "sandbox/oci/seccomp_groups.h"

#include <initializer_list>

namespace husk::sandbox {
namespace {

using Names = std::vector<std::string>;

const Names& Files() {
  static const Names names = {"access",
                              "chdir",
                              "chmod",
                              "chown",
                              "chown32",
                              "close",
                              "close_range",
                              "copy_file_range",
                              "creat",
                              "dup",
                              "dup2",
                              "dup3",
                              "faccessat",
                              "faccessat2",
                              "fadvise64",
                              "fadvise64_64",
                              "fallocate",
                              "fchdir",
                              "fchmod",
                              "fchmodat",
                              "fchmodat2",
                              "fchown",
                              "fchown32",
                              "fchownat",
                              "fcntl",
                              "fcntl64",
                              "fdatasync",
                              "flock",
                              "fstat",
                              "fstat64",
                              "fstatat64",
                              "fstatfs",
                              "fstatfs64",
                              "fsync",
                              "ftruncate",
                              "ftruncate64",
                              "futimesat",
                              "getcwd",
                              "getdents",
                              "getdents64",
                              "ioctl",
                              "lchown",
                              "lchown32",
                              "link",
                              "linkat",
                              "_llseek",
                              "lseek",
                              "lstat",
                              "lstat64",
                              "mkdir",
                              "mkdirat",
                              "mknod",
                              "mknodat",
                              "name_to_handle_at",
                              "newfstatat",
                              "open",
                              "openat",
                              "openat2",
                              "pread64",
                              "preadv",
                              "preadv2",
                              "pwrite64",
                              "pwritev",
                              "pwritev2",
                              "read",
                              "readahead",
                              "readlink",
                              "readlinkat",
                              "readv",
                              "rename",
                              "renameat",
                              "renameat2",
                              "rmdir",
                              "sendfile",
                              "sendfile64",
                              "splice",
                              "stat",
                              "stat64",
                              "statfs",
                              "statfs64",
                              "statx",
                              "symlink",
                              "symlinkat",
                              "sync",
                              "sync_file_range",
                              "syncfs",
                              "tee",
                              "truncate",
                              "truncate64",
                              "umask",
                              "unlink",
                              "unlinkat",
                              "utime",
                              "utimensat",
                              "utimensat_time64",
                              "utimes",
                              "vmsplice",
                              "write",
                              "writev"};
  return names;
}

const Names& ExtendedAttributesAndWatches() {
  static const Names names = {"fgetxattr",        "flistxattr",   "fremovexattr",  "fsetxattr",
                              "getxattr",         "inotify_init", "inotify_init1", "inotify_add_watch",
                              "inotify_rm_watch", "lgetxattr",    "listxattr",     "llistxattr",
                              "lremovexattr",     "lsetxattr",    "removexattr",   "setxattr"};
  return names;
}

const Names& Memory() {
  static const Names names = {"brk",
                              "madvise",
                              "membarrier",
                              "memfd_create",
                              "memfd_secret",
                              "mincore",
                              "mlock",
                              "mlock2",
                              "mlockall",
                              "mmap",
                              "mmap2",
                              "mprotect",
                              "mremap",
                              "msync",
                              "munlock",
                              "munlockall",
                              "munmap",
                              "pkey_alloc",
                              "pkey_free",
                              "pkey_mprotect",
                              "process_mrelease",
                              "remap_file_pages"};
  return names;
}

// Threads, and what they wait on, too. ptrace and its like reach no further than the container's own processes, which
// the user may read anyway; kernels since 4.8 apply the filter after the tracer's changes.
const Names& Processes() {
  static const Names names = {"arch_prctl",
                              "exit",
                              "exit_group",
                              "execve",
                              "execveat",
                              "fork",
                              "futex",
                              "futex_time64",
                              "futex_waitv",
                              "get_robust_list",
                              "get_thread_area",
                              "getcpu",
                              "getpgid",
                              "getpgrp",
                              "getpid",
                              "getppid",
                              "getsid",
                              "gettid",
                              "kill",
                              "modify_ldt",
                              "pause",
                              "pidfd_open",
                              "pidfd_send_signal",
                              "prctl",
                              "process_vm_readv",
                              "process_vm_writev",
                              "ptrace",
                              "restart_syscall",
                              "rseq",
                              "rt_sigaction",
                              "rt_sigpending",
                              "rt_sigprocmask",
                              "rt_sigqueueinfo",
                              "rt_sigreturn",
                              "rt_sigsuspend",
                              "rt_sigtimedwait",
                              "rt_sigtimedwait_time64",
                              "rt_tgsigqueueinfo",
                              "set_robust_list",
                              "set_thread_area",
                              "set_tid_address",
                              "setpgid",
                              "setsid",
                              "sigaction",
                              "sigaltstack",
                              "signal",
                              "sigpending",
                              "sigprocmask",
                              "sigreturn",
                              "sigsuspend",
                              "tgkill",
                              "tkill",
                              "vfork",
                              "wait4",
                              "waitid",
                              "waitpid"};
  return names;
}

// Who the caller is, and what limits and confinement it puts on itself.
const Names& IdentityAndLimits() {
  static const Names names = {"capget",
                              "capset",
                              "getegid",
                              "getegid32",
                              "geteuid",
                              "geteuid32",
                              "getgid",
                              "getgid32",
                              "getgroups",
                              "getgroups32",
                              "getresgid",
                              "getresgid32",
                              "getresuid",
                              "getresuid32",
                              "getrlimit",
                              "getrusage",
                              "getuid",
                              "getuid32",
                              "landlock_add_rule",
                              "landlock_create_ruleset",
                              "landlock_restrict_self",
                              "prlimit64",
                              "seccomp",
                              "setfsgid",
                              "setfsgid32",
                              "setfsuid",
                              "setfsuid32",
                              "setgid",
                              "setgid32",
                              "setgroups",
                              "setgroups32",
                              "setregid",
                              "setregid32",
                              "setresgid",
                              "setresgid32",
                              "setresuid",
                              "setresuid32",
                              "setreuid",
                              "setreuid32",
                              "setrlimit",
                              "setuid",
                              "setuid32",
                              "ugetrlimit"};
  return names;
}

const Names& SchedulingAndSystem() {
  static const Names names = {"getpriority",
                              "getrandom",
                              "ioprio_get",
                              "ioprio_set",
                              "sched_get_priority_max",
                              "sched_get_priority_min",
                              "sched_getaffinity",
                              "sched_getattr",
                              "sched_getparam",
                              "sched_getscheduler",
                              "sched_rr_get_interval",
                              "sched_rr_get_interval_time64",
                              "sched_setaffinity",
                              "sched_setattr",
                              "sched_setparam",
                              "sched_setscheduler",
                              "sched_yield",
                              "setpriority",
                              "sysinfo",
                              "times",
                              "uname"};
  return names;
}

// adjtimex and clock_adjtime also only ask; to change the clock they want CAP_SYS_TIME themselves.
const Names& Time() {
  static const Names names = {"adjtimex",
                              "alarm",
                              "clock_adjtime",
                              "clock_adjtime64",
                              "clock_getres",
                              "clock_getres_time64",
                              "clock_gettime",
                              "clock_gettime64",
                              "clock_nanosleep",
                              "clock_nanosleep_time64",
                              "getitimer",
                              "gettimeofday",
                              "nanosleep",
                              "setitimer",
                              "time",
                              "timer_create",
                              "timer_delete",
                              "timer_getoverrun",
                              "timer_gettime",
                              "timer_gettime64",
                              "timer_settime",
                              "timer_settime64",
                              "timerfd_create",
                              "timerfd_gettime",
                              "timerfd_gettime64",
                              "timerfd_settime",
                              "timerfd_settime64"};
  return names;
}

// socket itself goes by its address family. 32-bit programs may use socketcall, whose arguments no filter can see.
const Names& Sockets() {
  static const Names names = {"accept",     "accept4",    "bind",      "connect",  "getpeername", "getsockname",
                              "getsockopt", "listen",     "recv",      "recvfrom", "recvmmsg",    "recvmmsg_time64",
                              "recvmsg",    "send",       "sendmmsg",  "sendmsg",  "sendto",      "setsockopt",
                              "shutdown",   "socketcall", "socketpair"};
  return names;
}

const Names& PipesQueuesAndPolling() {
  static const Names names = {"epoll_create",
                              "epoll_create1",
                              "epoll_ctl",
                              "epoll_ctl_old",
                              "epoll_pwait",
                              "epoll_pwait2",
                              "epoll_wait",
                              "epoll_wait_old",
                              "eventfd",
                              "eventfd2",
                              "io_cancel",
                              "io_destroy",
                              "io_getevents",
                              "io_pgetevents",
                              "io_pgetevents_time64",
                              "io_setup",
                              "io_submit",
                              "ipc",
                              "mq_getsetattr",
                              "mq_notify",
                              "mq_open",
                              "mq_timedreceive",
                              "mq_timedreceive_time64",
                              "mq_timedsend",
                              "mq_timedsend_time64",
                              "mq_unlink",
                              "msgctl",
                              "msgget",
                              "msgrcv",
                              "msgsnd",
                              "_newselect",
                              "pipe",
                              "pipe2",
                              "poll",
                              "ppoll",
                              "ppoll_time64",
                              "pselect6",
                              "pselect6_time64",
                              "select",
                              "semctl",
                              "semget",
                              "semop",
                              "semtimedop",
                              "semtimedop_time64",
                              "shmat",
                              "shmctl",
                              "shmdt",
                              "shmget",
                              "signalfd",
                              "signalfd4"};
  return names;
}

Names Joined(std::initializer_list<const Names*> groups) {
  Names all;
  for (const Names* group : groups) all.insert(all.end(), group->begin(), group->end());
  return all;
}

}  // namespace

const Names& SeccompAllowed() {
  static const Names names =
      Joined({&Files(), &ExtendedAttributesAndWatches(), &Memory(), &Processes(), &IdentityAndLimits(),
              &SchedulingAndSystem(), &Time(), &Sockets(), &PipesQueuesAndPolling()});
  return names;
}

const Names& SeccompRefused() {
  static const Names names = {
      // Keys belong to users and sessions, not to containers.
      "add_key", "keyctl", "request_key",
      // Its operations are made by the kernel itself, behind every filter.
      "io_uring_enter", "io_uring_register", "io_uring_setup",
      // The machine's own: another kernel, swap, the root of the mount tree.
      "kexec_file_load", "kexec_load", "pivot_root", "swapoff", "swapon",
      // Lets a process hold the kernel up in the middle of an access to memory, which exploits like.
      "userfaultfd",
      // Left over from long ago, or about devices and file systems that a container has no business with.
      "nfsservctl", "sysfs", "uselib", "ustat", "vm86", "vm86old"};
  return names;
}

const std::map<std::string, Names>& SeccompOfCapabilities() {
  static const std::map<std::string, Names> groups = {
      {"CAP_BPF", {"bpf"}},
      {"CAP_DAC_READ_SEARCH", {"open_by_handle_at"}},
      {"CAP_PERFMON", {"perf_event_open"}},
      // Mounts, namespaces, names of the machine, and what the narrower capabilities of later kernels were cut out of.
      {"CAP_SYS_ADMIN", {"bpf",           "fanotify_init", "fanotify_mark",   "fsconfig", "fsmount",
                         "fsopen",        "fspick",        "lookup_dcookie",  "mount",    "mount_setattr",
                         "move_mount",    "open_tree",     "perf_event_open", "quotactl", "quotactl_fd",
                         "setdomainname", "sethostname",   "setns",           "syslog",   "umount",
                         "umount2",       "unshare"}},
      {"CAP_SYS_BOOT", {"reboot"}},
      {"CAP_SYS_CHROOT", {"chroot"}},
      {"CAP_SYSLOG", {"syslog"}},
      {"CAP_SYS_MODULE", {"delete_module", "finit_module", "init_module"}},
      {"CAP_SYS_NICE",
       {"get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"}},
      {"CAP_SYS_PACCT", {"acct"}},
      {"CAP_SYS_PTRACE", {"kcmp", "pidfd_getfd", "process_madvise"}},
      {"CAP_SYS_RAWIO", {"ioperm", "iopl"}},
      {"CAP_SYS_TIME", {"clock_settime", "clock_settime64", "settimeofday", "stime"}},
      {"CAP_SYS_TTY_CONFIG", {"vhangup"}}};
  return groups;
}

}  // namespace husk::sandbox
