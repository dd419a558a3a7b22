#include "cri/huskd/instance_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace husk::cri {

StatusOr<InstanceLock> InstanceLock::Take(const std::string& directory, const std::string& option) {
  const std::string path = directory + "/huskd.lock";
  UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) return ErrnoStatus(errno, "open " + path);
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock " + path);
    std::array<char, 32> owner{};
    const ssize_t size = pread(file.get(), owner.data(), owner.size(), 0);
    const absl::string_view pid(owner.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
    return absl::FailedPreconditionError(absl::StrCat("another huskd (pid ", absl::StripAsciiWhitespace(pid),
                                                      ") works in ", directory, ": stop it, or choose another ",
                                                      option));
  }
  const std::string pid = absl::StrCat(getpid(), "\n");
  // For the message above only: the lock is what counts.
  if (ftruncate(file.get(), 0) != 0 || pwrite(file.get(), pid.data(), pid.size(), 0) < 0) {
    return ErrnoStatus(errno, "write " + path);
  }
  return InstanceLock(std::move(file));
}

}  // namespace husk::cri
