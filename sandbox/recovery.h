// From the store's records and what still lives to pods in memory, when a huskd starts.
#ifndef HUSK_SANDBOX_RECOVERY_H_
#define HUSK_SANDBOX_RECOVERY_H_

#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/environment.h"
#include "sandbox/pod.h"
#include "sandbox/store/store.h"

namespace husk::sandbox {

// Brings one pod's record and reality together. What was half made, or half removed, is removed wholly: the pod is
// `removed` then, or, if that failed, NOTREADY, for a later removal. A VM that lives is adopted with its containers;
// one that does not leaves its pod NOTREADY and its containers EXITED. `same_boot`: the host has not been rebooted
// since the records were written.
void RecoverPod(Environment& environment, const Context& context, Pod& pod, PodPhase phase,
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
