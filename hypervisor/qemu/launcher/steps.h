// The steps of husk-vm-launcher, in the order in which main() takes them. Each prints what failed to standard error,
// which is the VM's log, and ends the process: there is no half-confined QEMU.
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
void SetLimits();
// A session of its own; namespaces: the pod's network, and new ones for mounts, IPC and the host name.
void EnterNamespaces(const Plan& plan);
// Makes a root that holds the binds and an empty read-only rest, and nothing else of the host.
void EnterPrivateRoot(const std::vector<Bind>& binds);
// From root with everything to the plan's user with nothing; checks that it came out so.
void DropPrivileges(const Plan& plan);
// Only standard input, output, error and `keep` survive execve.
void CloseAllBut(const std::vector<int>& keep);
[[noreturn]] void BecomeQemu(const std::vector<std::string>& command);

}  // namespace husk::hypervisor::launcher

#endif  // HUSK_HYPERVISOR_QEMU_LAUNCHER_STEPS_H_
