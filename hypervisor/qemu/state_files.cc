#include "hypervisor/qemu/state_files.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace husk::hypervisor {
namespace {

constexpr auto kRetryConnect = std::chrono::milliseconds(10);

// Through /proc, so that the directory's own path counts nothing towards the 108 bytes of an address.
StatusOr<sockaddr_un> AddressIn(int directory, const std::string& name) {
  const std::string path = absl::StrCat("/proc/self/fd/", directory, "/", name);
  sockaddr_un address{.sun_family = AF_UNIX};
  if (path.size() >= sizeof address.sun_path) return absl::InvalidArgumentError("the socket's name is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);  // as the socket API wants it
}

}  // namespace

StatusOr<UniqueFd> OpenStateDirectory(const std::string& path) {
  UniqueFd directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return ErrnoStatus(errno, absl::StrCat("open the state directory ", path));
  return directory;
}

StatusOr<UniqueFd> ListenIn(int directory, const std::string& name) {
  HUSK_ASSIGN_OR_RETURN(const auto address, AddressIn(directory, name));
  if (unlinkat(directory, name.c_str(), 0) != 0 && errno != ENOENT) return ErrnoStatus(errno, "remove an old socket");
  UniqueFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket_fd.valid()) return ErrnoStatus(errno, "socket");
  if (bind(socket_fd.get(), Generic(address), sizeof address) != 0) {
    return ErrnoStatus(errno, absl::StrCat("bind ", name));
  }
  if (listen(socket_fd.get(), 4) != 0) return ErrnoStatus(errno, absl::StrCat("listen on ", name));
  return socket_fd;
}

StatusOr<UniqueFd> ConnectIn(const Context& context, int directory, const std::string& name) {
  HUSK_ASSIGN_OR_RETURN(const auto address, AddressIn(directory, name));
  for (;;) {
    UniqueFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_fd.valid()) return ErrnoStatus(errno, "socket");
    if (connect(socket_fd.get(), Generic(address), sizeof address) == 0) return socket_fd;
    if (errno == ECONNREFUSED || errno == ENOENT) {
      return absl::UnavailableError(absl::StrCat("connect to ", name, ": nobody listens"));
    }
    if (errno != EAGAIN) return ErrnoStatus(errno, absl::StrCat("connect to ", name));
    HUSK_RETURN_IF_ERROR_DOING(SleepFor(context, kRetryConnect), absl::StrCat("connect to ", name));
  }
}

StatusOr<UniqueFd> CreateLog(int directory, const char* name) {
  const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
  UniqueFd log(openat(directory, name, flags, 0600));
  if (!log.valid()) return ErrnoStatus(errno, absl::StrCat("create ", name));
  return log;
}

StatusOr<UniqueFd> OpenLog(int directory, const char* name) {
  UniqueFd log(openat(directory, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!log.valid()) return ErrnoStatus(errno, absl::StrCat("open ", name));
  return log;
}

Status RemoveStateFiles(int directory) {
  Status status;
  for (const char* name : {"identity", "identity.new", kQmpSocket, kAgentSocket, kLogFile}) {
    if (unlinkat(directory, name, 0) != 0 && errno != ENOENT && status.ok()) {
      status = ErrnoStatus(errno, absl::StrCat("remove ", name));
    }
  }
  return status;
}

}  // namespace husk::hypervisor
