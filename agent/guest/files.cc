#include "agent/guest/files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"

namespace husk::agent {

StatusOr<std::string> ReadFile(const std::string& path, std::size_t maximum) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  std::string contents;
  std::array<char, 16384> buffer;  // NOLINT: read() fills it
  while (contents.size() < maximum) {
    const ssize_t count = read(file.get(), buffer.data(), std::min(buffer.size(), maximum - contents.size()));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, absl::StrCat("read ", path));
    if (count == 0) break;
    contents.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return contents;
}

Status WriteFile(const std::string& path, std::string_view contents) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  if (write(file.get(), contents.data(), contents.size()) < 0) return ErrnoStatus(errno, absl::StrCat("write ", path));
  return absl::OkStatus();
}

Status CreateFile(const std::string& path, std::string_view contents, mode_t mode) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("create ", path));
  while (!contents.empty()) {
    const ssize_t count = write(file.get(), contents.data(), contents.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, absl::StrCat("write ", path));
    contents.remove_prefix(static_cast<std::size_t>(count));
  }
  return absl::OkStatus();
}

Status MakeDirectories(const std::string& path, mode_t mode) {
  for (std::size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string prefix = path.substr(0, slash);
    if (mkdir(prefix.c_str(), mode) != 0 && errno != EEXIST) return ErrnoStatus(errno, absl::StrCat("mkdir ", prefix));
    if (slash == std::string::npos) return absl::OkStatus();
  }
}

bool IsMountPoint(const std::string& path) {
  struct stat here{};
  struct stat above{};
  return stat(path.c_str(), &here) == 0 && stat((path + "/..").c_str(), &above) == 0 && here.st_dev != above.st_dev;
}

Status RemoveTree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("remove ", path));
  return absl::OkStatus();
}

}  // namespace husk::agent
