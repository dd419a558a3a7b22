// Kernel parameters of a pod.
#ifndef HUSK_CRI_CONVERT_SYSCTLS_H_
#define HUSK_CRI_CONVERT_SYSCTLS_H_

#include <string>

#include "agent/common/status.h"
#include "sandbox/types.h"

namespace husk::cri {

// Whether a pod may have them: the ones that Linux keeps for each IPC or network namespace, by Kubernetes' list,
// written with dots or slashes. The guest's kernel would take others too, and they could harm only the pod, but a pod
// that works here would not elsewhere. INVALID_ARGUMENT "<field>[<name>]: <why>" for the first that is none of these,
// has no such form, or whose value is no line of text.
Status CheckSysctls(const sandbox::StringMap& sysctls, const std::string& field);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_SYSCTLS_H_
