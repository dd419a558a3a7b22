// The system calls of the RuntimeDefault profile, by what they are for. Names as libseccomp has them, those of 32-bit
// x86 among them. docs/seccomp.md says why each group is where it is.
#ifndef HUSK_SANDBOX_OCI_SECCOMP_GROUPS_H_
#define HUSK_SANDBOX_OCI_SECCOMP_GROUPS_H_

#include <map>
#include <string>
#include <vector>

namespace husk::sandbox {

// Allowed to everybody, whatever the arguments.
const std::vector<std::string>& SeccompAllowed();
// Allowed to nobody but privileged containers, which have no filter.
const std::vector<std::string>& SeccompRefused();
// By capability: allowed to a container that has it, or another one with the same call.
const std::map<std::string, std::vector<std::string>>& SeccompOfCapabilities();

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_OCI_SECCOMP_GROUPS_H_
