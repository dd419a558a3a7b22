// What husk-vm-launcher is told to do, as its command line says it: to become a QEMU, or a file server (virtiofsd).
#ifndef HUSK_HYPERVISOR_QEMU_LAUNCHER_PLAN_H_
#define HUSK_HYPERVISOR_QEMU_LAUNCHER_PLAN_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace husk::hypervisor::launcher {

// A host path that the program may see, read-only, and where. Directories are shown without what is mounted below them.
struct Bind {
  std::string source;
  std::string target;  // absolute
};

// Where a file server finds what it serves.
inline constexpr char kSharedRoot[] = "/shared";

// Descriptors are numbers that the launcher inherits.
struct Plan {
  int state_directory = -1;  // the identity is written there
  int go = -1;               // a socket: a byte out: the identity is written; a byte in: go on; its end: huskd is gone
  int network_namespace = -1;
  bool new_network_namespace = false;
  std::vector<int> cgroup_procs;
  // QEMU's. A file server has neither: it keeps the ids of root, in a user namespace of its own.
  uid_t user = 0;
  gid_t group = 0;
  std::vector<gid_t> supplementary_groups;
  std::vector<Bind> binds;
  int share = -1;  // the directory that a file server serves, which sees it at kSharedRoot; -1: the program is QEMU
  bool share_read_only = false;
  bool share_alone = false;  // without what is mounted below it
  std::vector<int> keep;     // the program's own
  std::vector<std::string> command;
};

// argv[0], then "--name=value" in any order, "--", the program's command. False, and what is wrong in `error`, unless
// the plan is whole: nothing has a default that would run it with more rights.
bool ParsePlan(const std::vector<std::string>& arguments, Plan& plan, std::string& error);

// The arguments that ParsePlan reads, with argv[0].
std::vector<std::string> PlanArguments(const std::string& launcher_binary, const Plan& plan);

}  // namespace husk::hypervisor::launcher

#endif  // HUSK_HYPERVISOR_QEMU_LAUNCHER_PLAN_H_
