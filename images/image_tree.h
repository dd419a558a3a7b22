// The file tree that an image's layers make together.
#ifndef HUSK_IMAGES_IMAGE_TREE_H_
#define HUSK_IMAGES_IMAGE_TREE_H_

#include <sys/stat.h>

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "images/layer_index.h"
#include "images/limits.h"
#include "images/tar_entry.h"

namespace husk::images {

using InodeId = std::uint32_t;
inline constexpr InodeId kRootInode = 0;

struct TreeInode {
  struct Child {
    InodeId inode = 0;
    std::uint32_t layer = 0;  // that put this name here
  };

  std::uint32_t mode = S_IFDIR | 0755;  // with the file type
  std::uint32_t user = 0;
  std::uint32_t group = 0;
  std::int64_t mtime = 0;
  std::uint32_t mtime_nanoseconds = 0;
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  std::uint64_t size = 0;         // regular files
  std::uint32_t part = 0;         // regular files: which blob has the data
  std::uint64_t data_offset = 0;  // in that blob, bytes
  std::string symlink_target;
  std::vector<ExtendedAttribute> attributes;
  InodeId parent = kRootInode;            // directories
  std::uint32_t depth = 0;                // directories: 0 for the root
  std::map<std::string, Child> children;  // directories, in byte order
  std::uint32_t links = 0;                // names it has in the tree; the root has one

  [[nodiscard]] bool IsDirectory() const { return S_ISDIR(mode); }
  [[nodiscard]] bool IsSymlink() const { return S_ISLNK(mode); }
};

// Layers are applied from the lowest up. Nothing here touches a file system: a symlink in an entry's path is followed
// within the tree, whose root is its own parent. No recursion. Not thread safe.
class ImageTree {
 public:
  explicit ImageTree(const MergeLimits& limits = {});

  // `part` is stored in the regular files of this layer. INVALID_ARGUMENT that names the entry if it cannot be applied,
  // RESOURCE_EXHAUSTED if the image exceeds limits.h, DATA_LOSS if the index is damaged. The tree is of no use then.
  Status ApplyLayer(LayerIndexReader index, std::uint32_t part);

  [[nodiscard]] const TreeInode& inode(InodeId id) const { return inodes_[id]; }
  // Upper bound of ids; those without links are not part of the tree.
  [[nodiscard]] InodeId inode_count() const { return static_cast<InodeId>(inodes_.size()); }

 private:
  enum class Missing { kCreate, kStop };

  Status ApplyEntry(const LayerEntry& entry, std::uint32_t part);
  Status CheckLimits() const;
  Status ApplyWhiteout(std::string_view path, std::string_view parent, std::string_view name);
  StatusOr<InodeId> ResolveHardLink(const TarEntry& file);
  // The directory that `path` names. kStop: NOT_FOUND if there is none.
  StatusOr<InodeId> ResolveDirectory(std::string_view path, Missing missing);
  InodeId NewInode();
  // RESOURCE_EXHAUSTED if it would lie too deep.
  StatusOr<InodeId> MakeDirectory(InodeId parent, const std::string& name);
  void SetAttributes(const TarEntry& file, TreeInode& inode);
  void Link(InodeId parent, const std::string& name, InodeId inode);
  // Takes a name away with everything below it.
  void Remove(InodeId parent, const std::string& name);
  // Takes away what layers below the current one put under `directory`.
  void RemoveLower(InodeId directory);

  const MergeLimits limits_;
  std::deque<TreeInode> inodes_;
  std::uint32_t layer_ = 0;
  // What has been spent of them. What is removed again counts too, so that layers cannot take turns.
  std::uint64_t names_ = 0;
  std::uint64_t text_bytes_ = 0;
  std::uint64_t steps_ = 0;
  std::uint64_t path_bytes_ = 0;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_IMAGE_TREE_H_
