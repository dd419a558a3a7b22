// Localhost profiles: a file of the node, in the form that Docker and Kubernetes share.
#ifndef HUSK_SANDBOX_OCI_SECCOMP_LOCALHOST_H_
#define HUSK_SANDBOX_OCI_SECCOMP_LOCALHOST_H_

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"

namespace husk::sandbox {

// Larger files are refused.
constexpr std::size_t kMaximumSeccompProfile = std::size_t{1} << 20;

// The file's bytes. `path` is the caller's word for a file of the host: absolute, and without "..". Errors name it:
// INVALID_ARGUMENT (no such path, not a regular file, too large), NOT_FOUND.
StatusOr<std::string> ReadSeccompProfile(const std::string& path);

// linux.seccomp of an OCI configuration out of such a file: Docker's conditions (archMap, includes, excludes,
// minKernel) are decided for a container with these capabilities in the guest. INVALID_ARGUMENT that says what is wrong
// and where, for what is no profile, for members that mean nothing (their author meant something), and for
// SCMP_ACT_NOTIFY, whose listener would be on the host.
StatusOr<nlohmann::json> ParseSeccompProfile(std::string_view text, const std::vector<std::string>& capabilities);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_OCI_SECCOMP_LOCALHOST_H_
