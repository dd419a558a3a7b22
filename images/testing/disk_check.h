// Looks at an image's disk with tools that are not Husk's: fsck.erofs and the kernel.
#ifndef HUSK_IMAGES_TESTING_DISK_CHECK_H_
#define HUSK_IMAGES_TESTING_DISK_CHECK_H_

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "images/image_service.h"

namespace husk::images::testing {

// A directory that goes with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// How many files and directories are directly in it.
std::size_t CountFiles(const std::string& directory);

// The parts, one after the other, in one file. Their lengths must be what the files have.
Status Concatenate(const std::vector<DiskPart>& parts, const std::string& path);

// Runs a program; an error with its output unless it exits with 0. Returns its output.
StatusOr<std::string> RunTool(const std::vector<std::string>& argv);

// Checks with fsck.erofs and extracts to `directory`, which must not exist.
Status FsckAndExtract(const std::string& disk, const std::string& directory);

// Whether this kernel can mount EROFS; `reason` says what is missing.
bool CanMountErofs(std::string& reason);

// What the tree looks like, one line per file: "/path type mode uid gid mtime links detail", the detail being size and
// SHA-256, a symlink's target, or "major:minor".

std::set<std::string> DescribeTree(const std::string& root);

// Mounts the disk read-only for as long as this exists.
class ErofsMount {
 public:
  ErofsMount(const std::string& disk, const std::string& directory);
  ~ErofsMount();
  ErofsMount(const ErofsMount&) = delete;
  ErofsMount& operator=(const ErofsMount&) = delete;
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  const std::string directory_;
  Status status_;
};

}  // namespace husk::images::testing

#endif  // HUSK_IMAGES_TESTING_DISK_CHECK_H_
