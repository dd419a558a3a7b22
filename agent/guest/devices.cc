#include "agent/guest/devices.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "agent/guest/scsi_disk.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

// "/a/b": no "." or "..", nothing empty.
bool IsPlainPath(const std::string& path) {
  if (path.size() < 2 || path.front() != '/' || path.find('\0') != std::string::npos) return false;
  for (const std::string_view name : Split(std::string_view(path).substr(1), '/')) {
    if (name.empty() || name == "." || name == "..") return false;
  }
  return true;
}

Status CheckDevice(const v1::Device& device) {
  if (!IsPlainPath(device.path())) {
    return absl::InvalidArgumentError(absl::StrCat("a device cannot be at \"", device.path(), "\""));
  }
  const std::string& permissions = device.permissions();
  if (permissions.empty() || permissions.find_first_not_of("rwm") != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("device ", device.path(), ": the permissions \"", permissions, "\" are not of r, w and m"));
  }
  return absl::OkStatus();
}

StatusOr<std::string> PathInGuest(const v1::Device& device) {
  if (device.has_lun()) return FindScsiDisk(device.lun());
  if (!IsPlainPath(device.guest_path()) || !absl::StartsWith(device.guest_path(), "/dev/")) {
    return absl::InvalidArgumentError(absl::StrCat("\"", device.guest_path(), "\" is no device of the guest"));
  }
  return device.guest_path();
}

}  // namespace

StatusOr<DeviceNode> FindDevice(const v1::Device& device) {
  HUSK_RETURN_IF_ERROR(CheckDevice(device));
  HUSK_ASSIGN_OR_RETURN(const std::string path, PathInGuest(device));
  struct stat info{};
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return absl::NotFoundError(absl::StrCat("the virtual machine has no device ", path));
    }
    return ErrnoStatus(errno, absl::StrCat("stat ", path));
  }
  const bool block = device.has_lun();
  if (block ? !S_ISBLK(info.st_mode) : !S_ISCHR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is no ", block ? "block" : "character", " device"));
  }
  return DeviceNode{.path = device.path(),
                    .block = block,
                    .major = major(info.st_rdev),
                    .minor = minor(info.st_rdev),
                    .access = device.permissions(),
                    .mode = (device.has_mode() ? device.mode() : info.st_mode) & 0777U,
                    .uid = device.has_uid() ? device.uid() : info.st_uid,
                    .gid = device.has_gid() ? device.gid() : info.st_gid};
}

}  // namespace husk::agent
