// A directory of the host as it was at one moment.
#ifndef HUSK_SANDBOX_VOLUMES_HOST_TREE_H_
#define HUSK_SANDBOX_VOLUMES_HOST_TREE_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::sandbox {

struct HostEntry {
  enum class Type { kDirectory, kFile, kSymlink };
  Type type = Type::kFile;
  std::uint32_t mode = 0;  // permission bits
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string target;  // of a symlink
  // Of a file: what changes when its contents do.
  std::int64_t size = 0;
  std::int64_t modified = 0;  // nanoseconds
  ino_t inode = 0;

  bool operator==(const HostEntry&) const = default;
};

// By path relative to the directory, which is not in it itself.
using HostTree = std::map<std::string, HostEntry>;

// RESOURCE_EXHAUSTED for more than 10,000 entries, 32 levels or 512 MiB; INVALID_ARGUMENT for what is no file,
// directory or symlink; ABORTED if the tree changed while it was read: to be read again.
StatusOr<HostTree> ReadHostTree(const std::string& directory);

// Of its files together.
std::int64_t BytesOf(const HostTree& tree);

// One file, for comparison with an earlier state of it. Symlinks are followed.
StatusOr<HostEntry> ReadHostFile(const std::string& path);

// For reading; neither the path nor its last name follows a symlink below the directory.
StatusOr<UniqueFd> OpenInTree(const std::string& directory, const std::string& path);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_VOLUMES_HOST_TREE_H_
