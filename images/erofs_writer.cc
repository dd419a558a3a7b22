#include "images/erofs_writer.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "images/byte_codec.h"
#include "images/digest.h"
#include "images/layer_index.h"
#include "images/limits.h"
#include "images/text.h"

namespace husk::images {
namespace {

// The on-disk format, as the kernel's Documentation/filesystems/erofs.rst and its header describe it.
constexpr std::uint64_t kSuperblockOffset = 1024;
constexpr std::size_t kSuperblockSize = 128;
constexpr std::uint32_t kMagic = 0xE0F5E1E2;
constexpr std::uint32_t kFeatureChecksum = 1;
constexpr std::uint8_t kBlockSizeBits = 12;
constexpr std::uint64_t kSlotSize = 32;  // inode numbers count these
constexpr std::uint64_t kInodeSize = 64;
constexpr std::uint64_t kInodeAlignment = 64;  // so that no inode lies across two blocks
constexpr std::uint16_t kExtended = 1;
constexpr std::uint16_t kFlatPlain = 0 << 1;
constexpr std::uint16_t kFlatInline = 2 << 1;
constexpr std::size_t kDirectoryEntrySize = 12;
constexpr std::size_t kAttributeHeaderSize = 12;
constexpr std::size_t kAttributeEntrySize = 4;

struct AttributePrefix {
  std::string_view prefix;
  std::uint8_t index;
};
constexpr AttributePrefix kAttributePrefixes[] = {
    {"user.", 1}, {"system.posix_acl_access", 2}, {"system.posix_acl_default", 3}, {"trusted.", 4}, {"security.", 6},
};

std::uint8_t DirectoryEntryType(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return 1;
    case S_IFDIR:
      return 2;
    case S_IFCHR:
      return 3;
    case S_IFBLK:
      return 4;
    case S_IFIFO:
      return 5;
    case S_IFSOCK:
      return 6;
    case S_IFLNK:
      return 7;
    default:
      return 0;
  }
}

std::string EncodeAttributes(const std::vector<ExtendedAttribute>& attributes) {
  std::string bytes;
  for (const ExtendedAttribute& attribute : attributes) {
    for (const auto& [prefix, index] : kAttributePrefixes) {
      if (!attribute.name.starts_with(prefix)) continue;
      const std::string_view rest = std::string_view(attribute.name).substr(prefix.size());
      // The names of ACLs are their prefixes; others need something after theirs.
      if (rest.empty() != prefix.starts_with("system.")) continue;
      if (bytes.empty()) bytes.assign(kAttributeHeaderSize, '\0');
      PutNumber(static_cast<std::uint8_t>(rest.size()), bytes);
      PutNumber(index, bytes);
      PutNumber(static_cast<std::uint16_t>(attribute.value.size()), bytes);
      bytes += rest;
      bytes += attribute.value;
      bytes.resize((bytes.size() + 3) / 4 * 4, '\0');
    }
  }
  return bytes;
}

// CRC-32C without the final inversion, as the kernel computes the superblock's checksum.
std::uint32_t Crc32c(std::string_view bytes) {
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0);
  }
  return crc;
}

class ErofsWriter {
 public:
  ErofsWriter(const ImageTree& tree, const std::vector<std::uint64_t>& blob_lengths)
      : tree_(tree), blob_lengths_(blob_lengths), placed_(tree.inode_count()) {}

  StatusOr<std::string> Write(std::string_view identity);

 private:
  // Where an inode and what belongs to it go.
  struct Placement {
    std::uint64_t offset = 0;        // of the inode, bytes; 0: not placed yet
    std::uint32_t attributes = 0;    // bytes, encoded
    std::uint64_t content_size = 0;  // directories and symlinks
    bool is_inline = false;          // the last part of the content follows the inode
    std::uint64_t blocks_at = 0;     // first block of the content that is not inline
    std::uint32_t number = 0;        // st_ino
    std::uint32_t subdirectories = 0;
  };
  struct DirectoryEntry {
    std::string_view name;
    InodeId inode;
  };

  void ListInodes();
  std::vector<DirectoryEntry> Entries(InodeId directory) const;
  static std::uint64_t DirectorySize(const std::vector<DirectoryEntry>& entries);
  std::string DirectoryContent(InodeId directory) const;
  void Place(InodeId id, std::uint64_t& end);
  Status PlaceAll();
  StatusOr<std::uint32_t> RawBlock(InodeId id) const;
  Status WriteInode(InodeId id);
  void WriteSuperblock(std::string_view identity);
  void PutAt(std::uint64_t offset, std::string_view bytes) { std::copy(bytes.begin(), bytes.end(), &image_[offset]); }
  std::uint64_t NodeNumber(InodeId id) const { return placed_[id].offset / kSlotSize; }

  const ImageTree& tree_;
  const std::vector<std::uint64_t>& blob_lengths_;
  std::vector<Placement> placed_;
  std::vector<InodeId> order_;              // all inodes, the root first, each directory's children together
  std::vector<std::uint64_t> part_blocks_;  // first block of each part on the disk
  std::uint64_t total_blocks_ = 0;
  std::string image_;
};

void ErofsWriter::ListInodes() {
  order_.push_back(kRootInode);
  placed_[kRootInode].number = 1;
  // Grows while it is walked: breadth first, without recursion.
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const TreeInode& inode = tree_.inode(order_[i]);
    for (const auto& [name, child] : inode.children) {
      if (tree_.inode(child.inode).IsDirectory()) ++placed_[order_[i]].subdirectories;
      if (placed_[child.inode].number != 0) continue;  // another name of a file with hard links
      order_.push_back(child.inode);
      placed_[child.inode].number = static_cast<std::uint32_t>(order_.size());
    }
  }
}

std::vector<ErofsWriter::DirectoryEntry> ErofsWriter::Entries(InodeId directory) const {
  const TreeInode& inode = tree_.inode(directory);
  std::vector<DirectoryEntry> entries = {{".", directory}, {"..", inode.parent}};
  entries.reserve(inode.children.size() + entries.size());
  for (const auto& [name, child] : inode.children) entries.push_back({name, child.inode});
  // The kernel looks names up by bisection; "." and ".." have no special place.
  std::sort(entries.begin(), entries.end(),
            [](const DirectoryEntry& a, const DirectoryEntry& b) { return a.name < b.name; });
  return entries;
}

std::uint64_t ErofsWriter::DirectorySize(const std::vector<DirectoryEntry>& entries) {
  std::uint64_t full_blocks = 0;
  std::uint64_t used = 0;
  for (const DirectoryEntry& entry : entries) {
    const std::uint64_t length = kDirectoryEntrySize + entry.name.size();
    if (used + length > kBlockSize) {
      full_blocks += kBlockSize;
      used = 0;
    }
    used += length;
  }
  return full_blocks + used;
}

std::string ErofsWriter::DirectoryContent(InodeId directory) const {
  const std::vector<DirectoryEntry> entries = Entries(directory);
  std::string content;
  for (std::size_t first = 0; first < entries.size();) {
    content.resize(RoundUpToBlock(content.size()), '\0');
    std::size_t last = first;
    for (std::uint64_t used = 0; last < entries.size(); ++last) {
      used += kDirectoryEntrySize + entries[last].name.size();
      if (used > kBlockSize) break;
    }
    std::uint64_t name_offset = (last - first) * kDirectoryEntrySize;
    for (std::size_t i = first; i < last; ++i) {
      PutNumber(NodeNumber(entries[i].inode), content);
      PutNumber(static_cast<std::uint16_t>(name_offset), content);
      PutNumber(DirectoryEntryType(tree_.inode(entries[i].inode).mode), content);
      PutNumber(std::uint8_t{0}, content);
      name_offset += entries[i].name.size();
    }
    for (std::size_t i = first; i < last; ++i) content += entries[i].name;
    first = last;
  }
  return content;
}

void ErofsWriter::Place(InodeId id, std::uint64_t& end) {
  const TreeInode& inode = tree_.inode(id);
  Placement& placement = placed_[id];
  placement.attributes = static_cast<std::uint32_t>(EncodeAttributes(inode.attributes).size());
  const std::uint64_t header = kInodeSize + placement.attributes;
  if (inode.IsDirectory()) placement.content_size = DirectorySize(Entries(id));
  if (inode.IsSymlink()) placement.content_size = inode.symlink_target.size();
  const std::uint64_t tail = placement.content_size % kBlockSize;
  placement.offset = (end + kInodeAlignment - 1) / kInodeAlignment * kInodeAlignment;
  // Inline content must not lie across two blocks; for a symlink neither may the attributes before it.
  placement.is_inline = tail > 0 && header + tail <= kBlockSize;
  if (placement.is_inline && placement.offset % kBlockSize + header + tail > kBlockSize) {
    placement.offset = RoundUpToBlock(placement.offset);
  }
  end = placement.offset + header + (placement.is_inline ? tail : 0);
}

Status ErofsWriter::PlaceAll() {
  ListInodes();
  std::uint64_t end = kSuperblockOffset + kSuperblockSize;
  for (const InodeId id : order_) Place(id, end);
  for (const InodeId id : order_) {
    Placement& placement = placed_[id];
    const std::uint64_t tail = placement.is_inline ? placement.content_size % kBlockSize : 0;
    const std::uint64_t in_blocks = RoundUpToBlock(placement.content_size - tail);
    if (in_blocks == 0) continue;
    placement.blocks_at = RoundUpToBlock(end);
    end = placement.blocks_at + in_blocks;
  }
  const std::uint64_t length = RoundUpToBlock(end);
  if (length > kMaximumErofsMetadata) return absl::ResourceExhaustedError("the image's metadata exceed 2 GiB");
  total_blocks_ = length / kBlockSize;
  for (const std::uint64_t blob : blob_lengths_) {
    part_blocks_.push_back(total_blocks_);
    total_blocks_ += blob / kBlockSize;
  }
  if (total_blocks_ > std::numeric_limits<std::uint32_t>::max()) {
    return absl::ResourceExhaustedError("the image's files exceed 16 TiB");
  }
  image_.assign(length, '\0');
  return absl::OkStatus();
}

// The inode's union: a device number, or the first block of the data.
StatusOr<std::uint32_t> ErofsWriter::RawBlock(InodeId id) const {
  const TreeInode& inode = tree_.inode(id);
  if (S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) {
    return (inode.device_minor & 0xff) | (inode.device_major << 8) | ((inode.device_minor & ~0xffU) << 12);
  }
  if (!S_ISREG(inode.mode)) return static_cast<std::uint32_t>(placed_[id].blocks_at / kBlockSize);
  if (inode.size == 0) return 0;
  if (inode.part >= blob_lengths_.size() || inode.data_offset > blob_lengths_[inode.part] ||
      RoundUpToBlock(inode.size) > blob_lengths_[inode.part] - inode.data_offset) {
    return absl::DataLossError("a layer's index points beyond its blob");
  }
  return static_cast<std::uint32_t>(part_blocks_[inode.part] + inode.data_offset / kBlockSize);
}

Status ErofsWriter::WriteInode(InodeId id) {
  const TreeInode& inode = tree_.inode(id);
  const Placement& placement = placed_[id];
  HUSK_ASSIGN_OR_RETURN(const std::uint32_t raw_block, RawBlock(id));
  std::string content;
  if (inode.IsDirectory()) content = DirectoryContent(id);
  if (inode.IsSymlink()) content = inode.symlink_target;
  const std::size_t attributes = placement.attributes;
  std::string bytes;
  PutNumber(static_cast<std::uint16_t>(kExtended | (placement.is_inline ? kFlatInline : kFlatPlain)), bytes);
  PutNumber(
      static_cast<std::uint16_t>(attributes == 0 ? 0 : (attributes - kAttributeHeaderSize) / kAttributeEntrySize + 1),
      bytes);
  PutNumber(static_cast<std::uint16_t>(inode.mode), bytes);
  PutNumber(std::uint16_t{0}, bytes);
  PutNumber(S_ISREG(inode.mode) ? inode.size : placement.content_size, bytes);
  PutNumber(raw_block, bytes);
  PutNumber(placement.number, bytes);
  PutNumber(inode.user, bytes);
  PutNumber(inode.group, bytes);
  PutNumber(static_cast<std::uint64_t>(inode.mtime), bytes);
  PutNumber(inode.mtime_nanoseconds, bytes);
  PutNumber(inode.IsDirectory() ? 2 + placement.subdirectories : inode.links, bytes);
  bytes.resize(kInodeSize, '\0');
  bytes += EncodeAttributes(inode.attributes);
  const std::uint64_t tail = placement.is_inline ? content.size() % kBlockSize : 0;
  bytes += std::string_view(content).substr(content.size() - tail);
  PutAt(placement.offset, bytes);
  PutAt(placement.blocks_at, std::string_view(content).substr(0, content.size() - tail));
  return absl::OkStatus();
}

void ErofsWriter::WriteSuperblock(std::string_view identity) {
  std::string bytes;
  PutNumber(kMagic, bytes);
  PutNumber(std::uint32_t{0}, bytes);  // checksum, below
  PutNumber(kFeatureChecksum, bytes);
  PutNumber(kBlockSizeBits, bytes);
  PutNumber(std::uint8_t{0}, bytes);  // no extended slots
  PutNumber(static_cast<std::uint16_t>(NodeNumber(kRootInode)), bytes);
  PutNumber(static_cast<std::uint64_t>(order_.size()), bytes);
  PutNumber(std::uint64_t{0}, bytes);  // build time, and its nanoseconds
  PutNumber(std::uint32_t{0}, bytes);
  PutNumber(static_cast<std::uint32_t>(total_blocks_), bytes);
  PutNumber(std::uint32_t{0}, bytes);  // first block of metadata
  PutNumber(std::uint32_t{0}, bytes);  // first block of shared attributes: there are none
  std::string uuid;
  uuid += absl::HexStringToBytes(DigestHex(DigestOf(identity)).substr(0, 32));
  uuid[6] = static_cast<char>((static_cast<unsigned char>(uuid[6]) & 0x0f) | 0x80);  // version 8: made our own way
  uuid[8] = static_cast<char>((static_cast<unsigned char>(uuid[8]) & 0x3f) | 0x80);
  bytes += uuid;
  PutAt(kSuperblockOffset, bytes);
  const std::string_view covered = std::string_view(image_).substr(kSuperblockOffset, kBlockSize - kSuperblockOffset);
  SetNumber(Crc32c(covered), kSuperblockOffset + 4, image_);
}

StatusOr<std::string> ErofsWriter::Write(std::string_view identity) {
  HUSK_RETURN_IF_ERROR(PlaceAll());
  for (const InodeId id : order_) HUSK_RETURN_IF_ERROR(WriteInode(id));
  WriteSuperblock(identity);
  return std::move(image_);
}

}  // namespace

StatusOr<std::string> WriteErofsMetadata(const ImageTree& tree, const std::vector<std::uint64_t>& blob_lengths,
                                         std::string_view identity) {
  return ErofsWriter(tree, blob_lengths).Write(identity);
}

}  // namespace husk::images
