#include "images/fuzz/merged_disk.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <map>
#include <numeric>
#include <utility>

#include "images/erofs_writer.h"
#include "images/fuzz/require.h"
#include "images/layer_index.h"
#include "images/testing/erofs_reader.h"
#include "images/text.h"

namespace husk::images::fuzz {
namespace {

using testing::ErofsFile;

// The kernel's encoding of a device number, as its user space has it too.
std::uint32_t DeviceOf(const TreeInode& inode) {
  if (!S_ISCHR(inode.mode) && !S_ISBLK(inode.mode)) return 0;
  return static_cast<std::uint32_t>(makedev(inode.device_major, inode.device_minor));
}

// Those that have a place in EROFS: a prefix alone is no name.
std::map<std::string, std::string> AttributesOf(const TreeInode& inode) {
  std::map<std::string, std::string> attributes;
  for (const ExtendedAttribute& attribute : inode.attributes) {
    const std::string& name = attribute.name;
    if (name != "user." && name != "trusted." && name != "security.") attributes.emplace(name, attribute.value);
  }
  return attributes;
}

class Comparison {
 public:
  Comparison(const ImageTree& tree, const std::map<std::string, ErofsFile>& files,
             std::vector<std::uint64_t> part_starts)
      : tree_(tree), files_(files), part_starts_(std::move(part_starts)) {}

  void Run() {
    std::vector<std::pair<std::string, InodeId>> left = {{"", kRootInode}};
    std::size_t names = 0;
    while (!left.empty()) {
      const auto [path, id] = left.back();
      left.pop_back();
      ++names;
      Compare(path, id);
      for (const auto& [name, child] : tree_.inode(id).children)
        left.emplace_back(Concat(path, "/", name), child.inode);
    }
    Require(names == files_.size(), "the disk has the tree's files and no others");
  }

 private:
  void Compare(const std::string& path, InodeId id) {
    const auto same = [&path](bool holds, std::string_view what) {
      if (!holds) Require(false, Concat("the disk has the tree's ", what, ": ", Printable(path)));
    };
    const TreeInode& inode = tree_.inode(id);
    const auto found = files_.find(path);
    same(found != files_.end(), "file");
    const ErofsFile& file = found->second;
    same(file.mode == inode.mode, "type and mode");
    same(file.user == inode.user && file.group == inode.group, "owner");
    same(file.mtime == inode.mtime && file.mtime_nanoseconds == inode.mtime_nanoseconds, "time");
    same(file.device == DeviceOf(inode), "device");
    same(file.symlink_target == inode.symlink_target, "target");
    same(file.attributes == AttributesOf(inode), "attributes");
    // The reader has counted a directory's links itself.
    if (!inode.IsDirectory()) same(file.links == inode.links, "link count");
    if (S_ISREG(inode.mode)) {
      same(file.size == inode.size, "size");
      if (inode.size > 0)
        same(file.data_offset == part_starts_.at(inode.part) + inode.data_offset, "place of the data");
    }
    // Names of one inode are one file, and no others are.
    const auto number = numbers_.emplace(id, file.number);
    same(number.first->second == file.number, "inode");
    if (number.second) same(ids_.emplace(file.number, id).second, "inode of its own");
  }

  const ImageTree& tree_;
  const std::map<std::string, ErofsFile>& files_;
  const std::vector<std::uint64_t> part_starts_;  // on the disk, bytes
  std::map<InodeId, std::uint32_t> numbers_;
  std::map<std::uint32_t, InodeId> ids_;
};

}  // namespace

std::string RequireSameOnDisk(const ImageTree& tree, const std::vector<std::uint64_t>& blob_lengths) {
  StatusOr<std::string> metadata = WriteErofsMetadata(tree, blob_lengths, "fuzz");
  Require(metadata.ok(), Concat("a tree can be written: ", metadata.status().message()));
  const StatusOr<std::string> again = WriteErofsMetadata(tree, blob_lengths, "fuzz");
  Require(again.ok() && *again == *metadata, "the same tree makes the same bytes");
  std::vector<std::uint64_t> part_starts;
  std::uint64_t end = metadata->size();
  for (const std::uint64_t length : blob_lengths) {
    part_starts.push_back(end);
    end += length;
  }
  const auto files = testing::ReadErofs(*metadata, end);
  Require(files.ok(), Concat("what was written can be read: ", files.status().message()));
  Comparison(tree, *files, std::move(part_starts)).Run();
  return *std::move(metadata);
}

}  // namespace husk::images::fuzz
