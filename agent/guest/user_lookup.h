// Who a container's processes are, by its image's /etc/passwd and /etc/group.
#ifndef HUSK_AGENT_GUEST_USER_LOOKUP_H_
#define HUSK_AGENT_GUEST_USER_LOOKUP_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

struct ResolvedUser {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> additional_gids;  // sorted, each once, gid among them
  std::string home = "/";
};

// The contents of the two files; both are hostile. Digits in an image's USER are a number, whatever names the image
// has. INVALID_ARGUMENT if a name is not there, a number is negative or above 2^31 - 1, or there are more groups than
// the kernel takes (65536).
StatusOr<ResolvedUser> ResolveUser(const v1::User& user, std::string_view passwd, std::string_view group);

// The same, reading the files below `root` without leaving it, whatever links the image has. A missing file counts as
// an empty one; one that is larger than 1 MiB is INVALID_ARGUMENT.
StatusOr<ResolvedUser> ResolveUserIn(const std::string& root, const v1::User& user);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_USER_LOOKUP_H_
