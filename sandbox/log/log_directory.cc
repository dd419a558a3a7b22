#include "sandbox/log/log_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cerrno>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace husk::sandbox {
namespace {

// One name below `directory`: no symlink is followed, nothing above is reached.
StatusOr<UniqueFd> OpenBeneath(int directory, const std::string& name, int flags, mode_t mode,
                               const std::string& full_path) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC | O_NOFOLLOW);
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  UniqueFd fd(static_cast<int>(syscall(SYS_openat2, directory, name.c_str(), &how, sizeof how)));
  if (fd.valid()) return fd;
  if (errno == ELOOP) {
    return absl::InvalidArgumentError(absl::StrCat("log path ", full_path, ": \"", name, "\" is a symlink"));
  }
  return ErrnoStatus(errno, absl::StrCat("open log path ", full_path));
}

StatusOr<std::vector<std::string>> Components(const std::string& log_path) {
  if (log_path.empty()) return absl::InvalidArgumentError("the log path is empty");
  if (log_path.front() == '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("log path \"", log_path, "\" is absolute; it must be relative to the pod's log directory"));
  }
  if (log_path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("log path \"", log_path.c_str(), "\" holds a NUL byte"));
  }
  std::vector<std::string> components = absl::StrSplit(log_path, '/', absl::SkipEmpty());
  for (const auto& component : components) {
    if (component == ".." || component == ".") {
      return absl::InvalidArgumentError(absl::StrCat("log path \"", log_path, "\" holds \"", component, "\""));
    }
  }
  if (components.empty() || log_path.back() == '/') {
    return absl::InvalidArgumentError(absl::StrCat("log path \"", log_path, "\" names no file"));
  }
  return components;
}

StatusOr<UniqueFd> RegularFile(UniqueFd fd, const std::string& full_path) {
  struct stat attributes{};
  if (fstat(fd.get(), &attributes) != 0) return ErrnoStatus(errno, absl::StrCat("stat log ", full_path));
  if (!S_ISREG(attributes.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("log path ", full_path, " is not a regular file"));
  }
  return fd;
}

}  // namespace

StatusOr<LogDirectory> LogDirectory::Open(const std::string& log_directory, const std::string& log_path) {
  if (log_directory.empty() || log_directory.front() != '/') {
    return absl::InvalidArgumentError(absl::StrCat("log directory \"", log_directory, "\" is not absolute"));
  }
  HUSK_ASSIGN_OR_RETURN(auto components, Components(log_path));
  const std::string full_path = absl::StrCat(log_directory, "/", log_path);
  std::string file_name = std::move(components.back());
  components.pop_back();
  // The kubelet made this directory and its path is the node's own: symlinks above it are the owner's business.
  UniqueFd directory(open(log_directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return ErrnoStatus(errno, absl::StrCat("open log directory ", log_directory));
  for (const auto& component : components) {
    if (mkdirat(directory.get(), component.c_str(), 0755) != 0 && errno != EEXIST) {
      return ErrnoStatus(errno, absl::StrCat("make directory \"", component, "\" of log path ", full_path));
    }
    HUSK_ASSIGN_OR_RETURN(auto next, OpenBeneath(directory.get(), component, O_RDONLY | O_DIRECTORY, 0, full_path));
    directory = std::move(next);
  }
  return LogDirectory(std::move(directory), std::move(file_name), full_path);
}

StatusOr<UniqueFd> LogDirectory::OpenFile() const {
  // O_RDWR and O_NONBLOCK: a FIFO that somebody put there must not hang us.
  HUSK_ASSIGN_OR_RETURN(
      auto fd, OpenBeneath(directory_.get(), file_name_, O_RDWR | O_APPEND | O_CREAT | O_NONBLOCK, 0640, full_path_));
  return RegularFile(std::move(fd), full_path_);
}

StatusOr<UniqueFd> LogDirectory::FindFile(dev_t device, ino_t inode) const {
  // fdopendir takes its descriptor over; this one has a position of its own.
  UniqueFd listing(openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!listing.valid()) return ErrnoStatus(errno, absl::StrCat("list the directory of log ", full_path_));
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(listing.get()), closedir);
  if (entries == nullptr) return ErrnoStatus(errno, absl::StrCat("list the directory of log ", full_path_));
  [[maybe_unused]] const int taken_over = listing.Release();
  while (const dirent* entry = readdir(entries.get())) {  // NOLINT(concurrency-mt-unsafe): a DIR of our own
    if (entry->d_ino != inode) continue;
    auto fd = OpenBeneath(directory_.get(), entry->d_name, O_RDWR | O_APPEND | O_NONBLOCK, 0, full_path_);
    if (!fd.ok()) continue;
    struct stat attributes{};
    if (fstat(fd->get(), &attributes) == 0 && S_ISREG(attributes.st_mode) && attributes.st_dev == device &&
        attributes.st_ino == inode) {
      return std::move(*fd);
    }
  }
  return absl::NotFoundError(absl::StrCat("no file with inode ", inode, " beside log ", full_path_));
}

}  // namespace husk::sandbox
