// Connecting to a unix socket wherever it lies.
#ifndef HUSK_AGENT_CLIENT_UNIX_SOCKET_H_
#define HUSK_AGENT_CLIENT_UNIX_SOCKET_H_

#include <string>

#include "agent/common/unique_fd.h"

namespace husk::agent {

struct UnixConnection {
  UniqueFd fd;    // non-blocking, close-on-exec; valid if and only if error is 0
  int error = 0;  // an errno: ENOENT (no such file), ECONNREFUSED (nobody listens), EAGAIN (its backlog is full), ...
};

// Does not block. The path may be longer than a socket's address holds (107 bytes); only its last component may not
// (ENAMETOOLONG).
UnixConnection ConnectUnixSocket(const std::string& path);

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_UNIX_SOCKET_H_
