#include "agent/client/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::agent {

UnixConnection ConnectUnixSocket(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  const UniqueFd directory_fd(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory_fd.valid()) return {.error = errno};

  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string short_path = absl::StrCat("/proc/self/fd/", directory_fd.get(), "/", name);
  if (short_path.size() >= sizeof address.sun_path) return {.error = ENAMETOOLONG};
  short_path.copy(&address.sun_path[0], short_path.size());

  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return {.error = errno};
  // NOLINTNEXTLINE(bugprone-casting-through-void): the sockets API's own idiom
  const auto* generic = static_cast<const sockaddr*>(static_cast<const void*>(&address));
  if (connect(fd.get(), generic, sizeof address) != 0) return {.error = errno};
  return {.fd = std::move(fd)};
}

}  // namespace husk::agent
