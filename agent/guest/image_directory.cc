#include "agent/guest/image_directory.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

constexpr const char* kFailure = "ImageVolumeMountFailed: ";

Status CheckName(const std::string& sub_path) {
  bool bad = sub_path.front() == '/' || sub_path.find('\0') != std::string::npos;
  for (const std::string_view name : Split(sub_path, '/')) bad = bad || name == "..";
  if (!bad) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(kFailure, "image_sub_path \"", sub_path, "\" is no relative path without \"..\""));
}

StatusOr<UniqueFd> OpenInImage(const UniqueFd& root, const std::string& sub_path) {
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  UniqueFd found(static_cast<int>(syscall(SYS_openat2, root.get(), sub_path.c_str(), &how, sizeof how)));
  if (found.valid()) return found;
  const int error = errno;
  const std::string what = absl::StrCat(kFailure, "image_sub_path \"", sub_path, "\" ");
  if (error == ENOENT) return absl::FailedPreconditionError(absl::StrCat(what, "is not in the image"));
  if (error == ENOTDIR) return absl::FailedPreconditionError(absl::StrCat(what, "is no directory of the image"));
  return absl::FailedPreconditionError(
      absl::StrCat(what, "cannot be opened: ", ErrnoStatus(error, "openat2").message()));
}

}  // namespace

StatusOr<std::string> FindImageDirectory(const std::string& root, const std::string& sub_path) {
  if (sub_path.empty()) return root;
  HUSK_RETURN_IF_ERROR(CheckName(sub_path));
  const UniqueFd image(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!image.valid()) return ErrnoStatus(errno, absl::StrCat(kFailure, "open ", root));
  HUSK_ASSIGN_OR_RETURN(const UniqueFd found, OpenInImage(image, sub_path));
  std::array<char, PATH_MAX> path{};
  const ssize_t size = readlink(absl::StrCat("/proc/self/fd/", found.get()).c_str(), path.data(), path.size());
  if (size <= 0 || static_cast<std::size_t>(size) == path.size()) {
    return absl::FailedPreconditionError(absl::StrCat(kFailure, "image_sub_path \"", sub_path, "\" has no path"));
  }
  return std::string(path.data(), static_cast<std::size_t>(size));
}

}  // namespace husk::agent
