// The steps of husk-vm-launcher, in the order in which main() takes them. Each prints what failed to standard error,
// which is the program's log, and ends the process: there is no half-confined program.
#ifndef HUSK_HYPERVISOR_QEMU_LAUNCHER_STEPS_H_
#define HUSK_HYPERVISOR_QEMU_LAUNCHER_STEPS_H_

#include <string>
#include <vector>

#include "hypervisor/qemu/launcher/plan.h"

namespace husk::hypervisor::launcher {

// Ends the process with code 125 after printing "husk-vm-launcher: DOING: ERROR". `error` 0: no system call failed.
[[noreturn]] void Fail(const std::string& doing, int error);

// Writes "identity" into the state directory: whole or not at all.
void WriteIdentity(int state_directory);
// Tells huskd that the identity is written and blocks until huskd has seen it. Ends the process quietly if huskd goes
// away before that: nobody would know of this one.
void WaitForGo(int go);
void JoinCgroups(const std::vector<int>& cgroup_procs);
// huskd may be protected from the OOM killer; a guest shall not be.
void RaiseOomScore();
// A file server holds a descriptor per file that the guest knows of.
void SetLimits(const Plan& plan);
// The directory to be served as a detached mount, with what is mounted below it; -1 for QEMU. While the host's mounts
// are still this process's.
int CloneShare(const Plan& plan);
// A session of its own; namespaces: the pod's network, and new ones for mounts, IPC and the host name.
void EnterNamespaces(const Plan& plan);
// Makes a root that holds the binds and an empty read-only rest, and nothing else of the host. A file server's has the
// share at kSharedRoot and /proc, which virtiofsd needs until it has made namespaces of its own.
void EnterPrivateRoot(const std::vector<Bind>& binds, int share);
// From root with everything to the plan's user with nothing; checks that it came out so.
void DropPrivileges(const Plan& plan);
// For a file server: from root with everything to root of a user namespace in which every id is itself, with nothing
// outside of it.
void EnterUserNamespace();
// Only standard input, output, error and `keep` survive execve.
void CloseAllBut(const std::vector<int>& keep);
[[noreturn]] void Become(const std::vector<std::string>& command);

}  // namespace husk::hypervisor::launcher

#endif  // HUSK_HYPERVISOR_QEMU_LAUNCHER_STEPS_H_
