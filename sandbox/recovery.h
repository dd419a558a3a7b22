// From the store's records and what still lives to pods in memory, when a huskd starts.
#ifndef HUSK_SANDBOX_RECOVERY_H_
#define HUSK_SANDBOX_RECOVERY_H_

#include <functional>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/environment.h"
#include "sandbox/pod.h"
#include "sandbox/store/store.h"

namespace husk::sandbox {

// What is left of an adoption when the guest has not answered within moments. To be called once, on a thread of its own
// and under the pod's turn: it waits for the guest as long as one may be silent, and brings its answers in.
using LateAdoption = std::function<void(const Context& context)>;

// Brings one pod's record and reality together. What was half made, or half removed, is removed wholly: the pod is
// `removed` then, or, if that failed, NOTREADY, for a later removal. A VM that lives is adopted with its containers;
// one that does not leaves its pod NOTREADY and its containers EXITED. `same_boot`: the host has not been rebooted
// since the records were written. A guest that does not answer holds up nobody: its pod is shown as the records have
// it, and what is returned goes on; else it is empty. It uses the environment and the pod.
LateAdoption RecoverPod(Environment& environment, const Context& context, Pod& pod, PodPhase phase,
                        const std::string& guest_boot_id, std::vector<ContainerRecord> containers, bool same_boot);

// Removes namespaces, VMs and directories whose pod no record names. Of what fails, which is logged, the pods' ids.
std::vector<std::string> RemoveOrphans(Environment& environment, const Context& context,
                                       const std::vector<PodRecord>& known);
// One of them. Repeatable.
Status RemoveOrphan(Environment& environment, const Context& context, const std::string& id);

// Of the running kernel.
StatusOr<std::string> ReadBootId();

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_RECOVERY_H_
