#include "agent/guest/container_roots.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"
#include "agent/guest/files.h"
#include "agent/guest/retry.h"
#include "agent/guest/scsi_disk.h"

namespace husk::agent {
namespace {

constexpr auto kUnmountPatience = std::chrono::seconds(10);

// OK also if nothing is mounted there.
Status Unmount(const std::string& path) {
  if (umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || errno == ENOENT) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("unmount ", path));
}

// A mounted disk cannot be opened exclusively, whoever still holds the mount.
Status CheckUnused(const std::string& disk) {
  const UniqueFd fd(open(disk.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK));
  if (fd.valid() || errno != EBUSY) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("wait for the last user of ", disk));
}

}  // namespace

DiskContainerRoots::DiskContainerRoots(EventLoop& loop, Children& children, std::string base, std::string scratch)
    : loop_(loop), children_(children), base_(std::move(base)), scratch_(std::move(scratch)) {}

std::string DiskContainerRoots::ImagePath(std::uint32_t lun) const {
  return absl::StrCat(base_, "/images/", lun);
}
std::string DiskContainerRoots::RootPath(const std::string& id) const {
  return absl::StrCat(base_, "/roots/", id);
}
std::string DiskContainerRoots::UpperPath(const std::string& id) const {
  return absl::StrCat(scratch_, "/containers/", id);
}

std::string DiskContainerRoots::WritableLayer(const std::string& id) const {
  return luns_.contains(id) ? UpperPath(id) + "/upper" : std::string();
}

void DiskContainerRoots::Prepare(const std::string& id, std::uint32_t image_lun,
                                 const std::set<std::uint32_t>& volume_luns,
                                 std::function<void(StatusOr<std::string>)> done) {
  if (!IsMountPoint(scratch_)) {
    done(absl::FailedPreconditionError("the sandbox is not configured: no scratch disk"));
    return;
  }
  std::set<std::uint32_t> luns = volume_luns;
  luns.insert(image_lun);
  Retry(
      loop_, kDiskPatience, [this, id, luns] { return MountImages(id, luns); },
      [this, id, image_lun, done = std::move(done)](const Status& mounted) {
        StatusOr<std::string> root = absl::FailedPreconditionError(mounted.message());
        if (mounted.ok()) root = MountOverlay(id, image_lun);
        if (root.ok()) {
          done(std::move(root));
          return;
        }
        Release(id, [done, failure = root.status()](const Status&) { done(failure); });
      });
}

Status DiskContainerRoots::MountImages(const std::string& id, const std::set<std::uint32_t>& luns) {
  for (const std::uint32_t lun : luns) {
    HUSK_RETURN_IF_ERROR_DOING(MountImage(lun), absl::StrCat("image disk lun=", lun));
    images_[lun].users.insert(id);
    luns_[id].insert(lun);
  }
  return absl::OkStatus();
}

Status DiskContainerRoots::MountImage(std::uint32_t lun) {
  if (const auto present = images_.find(lun); present != images_.end()) {
    return present->second.unmounted ? absl::UnavailableError("the disk is being released") : absl::OkStatus();
  }
  HUSK_ASSIGN_OR_RETURN(const std::string disk, FindScsiDisk(lun));
  const std::string path = ImagePath(lun);
  HUSK_RETURN_IF_ERROR(MakeDirectories(path, 0700));
  if (mount(disk.c_str(), path.c_str(), "erofs", MS_RDONLY | MS_NODEV | MS_NOATIME, nullptr) != 0) {
    return ErrnoStatus(errno, absl::StrCat("mount EROFS from ", disk));
  }
  images_[lun].disk = disk;
  return absl::OkStatus();
}

StatusOr<std::string> DiskContainerRoots::MountOverlay(const std::string& id, std::uint32_t lun) {
  const std::string upper = absl::StrCat(UpperPath(id), "/upper");
  const std::string work = absl::StrCat(UpperPath(id), "/work");
  std::string root = RootPath(id);
  struct stat image_root{};
  if (stat(ImagePath(lun).c_str(), &image_root) != 0) return ErrnoStatus(errno, "stat the image's root");
  HUSK_RETURN_IF_ERROR(MakeDirectories(upper, 0755));
  HUSK_RETURN_IF_ERROR(MakeDirectories(work, 0700));
  HUSK_RETURN_IF_ERROR(MakeDirectories(root, 0755));
  // The upper directory's own attributes are those of the container's "/".
  if (chown(upper.c_str(), image_root.st_uid, image_root.st_gid) != 0 ||
      chmod(upper.c_str(), image_root.st_mode & 07777) != 0) {
    return ErrnoStatus(errno, "set the root's owner");
  }
  // volatile: the scratch disk ends with the pod, so no fsync has to reach it.
  const std::string options =
      absl::StrCat("lowerdir=", ImagePath(lun), ",upperdir=", upper, ",workdir=", work, ",redirect_dir=on,volatile");
  if (mount("overlay", root.c_str(), "overlay", 0, options.c_str()) != 0) {
    return ErrnoStatus(errno, absl::StrCat("mount the overlay of ", id));
  }
  return root;
}

void DiskContainerRoots::Release(const std::string& id, std::function<void(Status)> done) {
  Retry(
      loop_, kUnmountPatience, [path = RootPath(id)] { return Unmount(path); },
      [this, id, done = std::move(done)](const Status& unmounted) {
        if (!unmounted.ok()) {
          done(unmounted);
          return;
        }
        rmdir(RootPath(id).c_str());
        auto remove_files = [this, id, done](const Status& released) {
          if (!released.ok()) {
            done(released);
          } else {
            luns_.erase(id);
            RemoveFiles(id, done);
          }
        };
        ReleaseImages(id, std::move(remove_files));
      });
}

void DiskContainerRoots::ReleaseImages(const std::string& id, std::function<void(Status)> done) {
  const auto found = luns_.find(id);
  const auto luns = found == luns_.end() ? std::set<std::uint32_t>() : found->second;
  for (const std::uint32_t lun : luns) {
    if (const auto image = images_.find(lun); image != images_.end()) image->second.users.erase(id);
  }
  Retry(
      loop_, kUnmountPatience,
      [this, luns] {
        for (const std::uint32_t lun : luns) HUSK_RETURN_IF_ERROR(ReleaseImage(lun));
        return absl::OkStatus();
      },
      std::move(done));
}

Status DiskContainerRoots::ReleaseImage(std::uint32_t lun) {
  const auto image = images_.find(lun);
  if (image == images_.end() || !image->second.users.empty()) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(Unmount(ImagePath(lun)));
  image->second.unmounted = true;
  HUSK_RETURN_IF_ERROR(CheckUnused(image->second.disk));
  rmdir(ImagePath(lun).c_str());
  images_.erase(image);
  return absl::OkStatus();
}

void DiskContainerRoots::RemoveFiles(const std::string& id, const std::function<void(Status)>& done) {
  const std::string path = UpperPath(id);
  if (access(path.c_str(), F_OK) != 0) {
    done(absl::OkStatus());
    return;
  }
  // By a process of its own: a container may have left millions of files.
  auto started = children_.Start({.argv = {"/proc/self/exe", "--remove-tree", path}}, [done, path](int exit_code) {
    done(exit_code == 0 ? absl::OkStatus() : absl::InternalError(absl::StrCat("could not remove ", path)));
  });
  if (!started.ok()) done(started.status());
}

}  // namespace husk::agent
