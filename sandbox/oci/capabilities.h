// Which Linux capabilities a container gets.
#ifndef HUSK_SANDBOX_OCI_CAPABILITIES_H_
#define HUSK_SANDBOX_OCI_CAPABILITIES_H_

#include <string>
#include <vector>

#include "agent/common/status.h"

namespace husk::sandbox {

// The fourteen that containerd, CRI-O's predecessors and Docker give by default, without those in `drop`, and those in
// `add`; "ALL" in either means every one (drop ALL, then add, as Kubernetes means it). Names with or without "CAP_", in
// any case; the result is "CAP_..." in the kernel's order. INVALID_ARGUMENT names one that does not exist.
StatusOr<std::vector<std::string>> ContainerCapabilities(const std::vector<std::string>& add,
                                                         const std::vector<std::string>& drop);

// The named ones alone, checked in the same way.
StatusOr<std::vector<std::string>> NamedCapabilities(const std::vector<std::string>& names);

// Every capability that Linux 6.1 has.
const std::vector<std::string>& AllCapabilities();

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_OCI_CAPABILITIES_H_
