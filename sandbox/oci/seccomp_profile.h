// The RuntimeDefault profile: which system calls a container may make whose pod does not say otherwise.
#ifndef HUSK_SANDBOX_OCI_SECCOMP_PROFILE_H_
#define HUSK_SANDBOX_OCI_SECCOMP_PROFILE_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace husk::sandbox {

// linux.seccomp of an OCI configuration for a container with these capabilities ("CAP_..." names). Three outcomes: what
// is allowed, allowed to a capability the container has, or harmless by its arguments works; what the profile knows and
// keeps fails with EPERM; the rest fails with ENOSYS, calls of a later kernel above all, so that programs fall back to
// what they did before there was such a call. docs/seccomp.md has the groups and their reasons.
nlohmann::json DefaultSeccompProfile(const std::vector<std::string>& capabilities);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_OCI_SECCOMP_PROFILE_H_
