#include "sandbox/host_device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

// What a kernel has without any hardware. The guest's are as good as the host's; of whatever else bears the name of a
// device of the host the guest's would be another one.
constexpr std::array<std::string_view, 13> kSoftwareDevices = {
    "/dev/cuse", "/dev/full",   "/dev/fuse", "/dev/hwrng",  "/dev/kmsg",    "/dev/net/tun", "/dev/null",
    "/dev/ppp",  "/dev/random", "/dev/tty",  "/dev/uinput", "/dev/urandom", "/dev/zero"};

bool IsSoftwareDevice(const std::string& path) {
  return std::find(kSoftwareDevices.begin(), kSoftwareDevices.end(), path) != kSoftwareDevices.end();
}

Status CheckNode(const ContainerDevice& device) {
  const std::filesystem::path path(device.container_path);
  if (!path.is_absolute() || path.lexically_normal().string() != device.container_path || !path.has_filename() ||
      device.container_path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("container_path \"", absl::CHexEscape(device.container_path), "\" is no absolute path of a file"));
  }
  if (device.permissions.empty() || device.permissions.find_first_not_of("rwm") != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("permissions \"", absl::CHexEscape(device.permissions), "\" are not one or more of r, w and m"));
  }
  if (device.host_path.empty() || device.host_path.front() != '/' || device.host_path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("host_path \"", absl::CHexEscape(device.host_path), "\" is no absolute path"));
  }
  return absl::OkStatus();
}

Status OpenBlockDevice(const std::string& path, const std::string& name, HostDevice& found) {
  const int access = found.read_only ? O_RDONLY : O_RDWR;
  found.descriptor = UniqueFd(open(path.c_str(), access | O_CLOEXEC | O_NONBLOCK));
  if (!found.descriptor.valid()) {
    return ErrnoStatus(errno, absl::StrCat("open block device ", name, found.read_only ? "" : " for writing"));
  }
  struct stat info{};
  if (fstat(found.descriptor.get(), &info) != 0) return ErrnoStatus(errno, absl::StrCat("fstat ", name));
  if (!S_ISBLK(info.st_mode)) return absl::AbortedError(absl::StrCat("host_path ", name, " has just been replaced"));
  if (ioctl(found.descriptor.get(), BLKGETSIZE64, &found.size_bytes) != 0) {
    return ErrnoStatus(errno, absl::StrCat("read the size of ", name));
  }
  if (found.size_bytes == 0) {
    return absl::FailedPreconditionError(absl::StrCat("block device ", name, " has no medium: its size is 0"));
  }
  found.number = info.st_rdev;
  return absl::OkStatus();
}

// The host need not have it.
StatusOr<std::string> NameInGuest(const std::string& path, bool exists) {
  std::error_code error;
  const std::string real = exists ? std::filesystem::canonical(path, error).string()
                                  : std::filesystem::path(path).lexically_normal().string();
  if (!error && IsSoftwareDevice(real)) return real;
  if (!exists)
    return absl::InvalidArgumentError(absl::StrCat("host_path ", absl::CHexEscape(path), ": there is no such device"));
  return absl::UnimplementedError(
      absl::StrCat("host_path ", absl::CHexEscape(path),
                   ": a container in a virtual machine can have block devices of the host, and devices that any kernel "
                   "has, such as /dev/fuse; this one belongs to the host alone"));
}

}  // namespace

StatusOr<HostDevice> OpenHostDevice(const ContainerDevice& device) {
  HUSK_RETURN_IF_ERROR(CheckNode(device));
  HostDevice found{.descriptor = UniqueFd(), .guest_path = "", .node = device};
  const std::string& path = device.host_path;
  const std::string name = absl::CHexEscape(path);
  struct stat info{};
  const bool exists = stat(path.c_str(), &info) == 0;
  if (!exists && errno != ENOENT && errno != ENOTDIR) return ErrnoStatus(errno, absl::StrCat("host_path ", name));
  if (exists && !S_ISBLK(info.st_mode) && !S_ISCHR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("host_path ", name, " is no device"));
  }
  if (exists) {
    found.node.mode = device.mode.value_or(info.st_mode & 0777U);
    found.node.uid = device.uid.value_or(info.st_uid);
    found.node.gid = device.gid.value_or(info.st_gid);
  }
  if (exists && S_ISBLK(info.st_mode)) {
    found.read_only = device.permissions.find('w') == std::string::npos;
    HUSK_RETURN_IF_ERROR(OpenBlockDevice(path, name, found));
    return found;
  }
  HUSK_ASSIGN_OR_RETURN(found.guest_path, NameInGuest(path, exists));
  return found;
}

}  // namespace husk::sandbox
