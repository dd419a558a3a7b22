#include "images/testing/erofs_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "images/text.h"

namespace husk::images::testing {
namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kSuperblock = 1024;
constexpr std::uint64_t kSuperblockEnd = kSuperblock + 128;
constexpr std::uint64_t kInode = 64;

Status Fault(std::string_view what) {
  return absl::DataLossError(Concat("not a sound EROFS image: ", what));
}

struct Inode {
  ErofsFile file;
  std::uint64_t nid = 0;
  std::uint64_t content_size = 0;
  std::uint32_t raw = 0;  // a device number or the first block
  bool is_inline = false;
  std::uint64_t tail_at = 0;  // where inline content begins
};

struct Entry {
  std::string name;
  std::uint64_t nid = 0;
  std::uint8_t type = 0;
};

std::uint32_t ModeOf(std::uint8_t type) {
  constexpr std::array<std::uint32_t, 8> kModes = {0, S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK};
  return type < kModes.size() ? kModes[type] : 0;
}

class Reader {
 public:
  Reader(std::string_view metadata, std::uint64_t disk_length) : bytes_(metadata), disk_length_(disk_length) {}

  StatusOr<std::map<std::string, ErofsFile>> Read();

 private:
  struct Visit {
    std::string path;
    std::uint64_t nid = 0;
    std::uint64_t parent = 0;
  };

  template <typename Number>
  [[nodiscard]] Number At(std::uint64_t offset) const {
    Number number{};
    std::memcpy(&number, bytes_.data() + offset, sizeof(number));  // the host is little-endian
    return number;
  }
  // Notes that this range is in use; fails if it is outside the metadata.
  Status Claim(std::uint64_t offset, std::uint64_t length, std::string_view what);
  Status ReadSuperblock();
  StatusOr<Inode> ReadInode(std::uint64_t nid);
  Status ReadAttributes(std::uint64_t offset, std::uint64_t end, Inode& inode) const;
  StatusOr<std::string> ReadContent(const Inode& inode);
  static StatusOr<std::vector<Entry>> ParseDirectory(std::string_view content);
  Status CheckOverlaps();

  const std::string_view bytes_;
  const std::uint64_t disk_length_;
  std::uint64_t root_ = 0;
  std::uint64_t inode_count_ = 0;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> claims_;  // offset, end
};

Status Reader::Claim(std::uint64_t offset, std::uint64_t length, std::string_view what) {
  if (offset > bytes_.size() || length > bytes_.size() - offset) return Fault(Concat(what, " outside the metadata"));
  if (length > 0) claims_.emplace_back(offset, offset + length);
  return absl::OkStatus();
}

Status Reader::ReadSuperblock() {
  if (bytes_.size() < kBlock || bytes_.size() % kBlock != 0) return Fault("length of the metadata");
  if (disk_length_ < bytes_.size() || disk_length_ % kBlock != 0) return Fault("length of the disk");
  HUSK_RETURN_IF_ERROR(Claim(0, kSuperblockEnd, "superblock"));
  if (At<std::uint32_t>(kSuperblock) != 0xE0F5E1E2) return Fault("magic");
  std::string covered(bytes_.substr(kSuperblock, kBlock - kSuperblock));
  std::memset(covered.data() + 4, 0, 4);
  std::uint32_t crc = 0xffffffff;
  for (const char c : covered) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82F63B78 : crc >> 1;
  }
  if (At<std::uint32_t>(kSuperblock + 4) != crc) return Fault("checksum");
  if (At<std::uint32_t>(kSuperblock + 8) != 1) return Fault("compatible features");
  if (At<std::uint8_t>(kSuperblock + 12) != 12) return Fault("block size");
  root_ = At<std::uint16_t>(kSuperblock + 14);
  inode_count_ = At<std::uint64_t>(kSuperblock + 16);
  if (At<std::uint32_t>(kSuperblock + 36) != disk_length_ / kBlock) return Fault("number of blocks");
  if (At<std::uint32_t>(kSuperblock + 40) != 0) return Fault("block of the inodes");
  if (At<std::uint32_t>(kSuperblock + 80) != 0) return Fault("incompatible features");
  return absl::OkStatus();
}

StatusOr<Inode> Reader::ReadInode(std::uint64_t nid) {
  Inode inode{.nid = nid};
  if (nid > bytes_.size() / 32) return Fault("inode outside the metadata");
  const std::uint64_t at = nid * 32;
  HUSK_RETURN_IF_ERROR(Claim(at, kInode, "inode"));
  if (at / kBlock != (at + kInode - 1) / kBlock) return Fault("inode across two blocks");
  const auto format = At<std::uint16_t>(at);
  if (format != 1 && format != (1 | 2 << 1)) return Fault("inode format");
  inode.is_inline = format != 1;
  const auto attribute_units = At<std::uint16_t>(at + 2);
  inode.file.mode = At<std::uint16_t>(at + 4);
  inode.content_size = At<std::uint64_t>(at + 8);
  inode.raw = At<std::uint32_t>(at + 16);
  inode.file.number = At<std::uint32_t>(at + 20);
  inode.file.user = At<std::uint32_t>(at + 24);
  inode.file.group = At<std::uint32_t>(at + 28);
  inode.file.mtime = At<std::int64_t>(at + 32);
  inode.file.mtime_nanoseconds = At<std::uint32_t>(at + 40);
  inode.file.links = At<std::uint32_t>(at + 44);
  if (inode.file.mtime_nanoseconds >= 1'000'000'000) return Fault("nanoseconds");
  std::uint64_t end = at + kInode;
  if (attribute_units > 0) {
    const std::uint64_t length = 12 + std::uint64_t{attribute_units - 1U} * 4;
    HUSK_RETURN_IF_ERROR(Claim(end, length, "attributes"));
    HUSK_RETURN_IF_ERROR(ReadAttributes(end, end + length, inode));
    end += length;
  }
  inode.tail_at = end;
  const std::uint32_t type = inode.file.mode & S_IFMT;
  if (type == S_IFREG) {
    inode.file.size = inode.content_size;
    inode.file.data_offset = inode.raw * kBlock;
    if (inode.is_inline) return Fault("inline data of a file");
    const bool outside = inode.file.data_offset < bytes_.size() || inode.file.data_offset > disk_length_ ||
                         inode.file.size > disk_length_ - inode.file.data_offset;
    if (inode.file.size > 0 && outside) return Fault("a file's data outside the blobs");
  } else if (type == S_IFCHR || type == S_IFBLK || type == S_IFIFO) {
    if (inode.content_size != 0 || inode.is_inline) return Fault("content of a device");
    inode.file.device = type == S_IFIFO ? 0 : inode.raw;
  } else if (type != S_IFDIR && type != S_IFLNK) {
    return Fault("file type");
  }
  return inode;
}

Status Reader::ReadAttributes(std::uint64_t offset, std::uint64_t end, Inode& inode) const {
  static const std::map<std::uint8_t, std::string> kPrefixes = {
      {1, "user."}, {2, "system.posix_acl_access"}, {3, "system.posix_acl_default"}, {4, "trusted."}, {6, "security."}};
  if (At<std::uint8_t>(offset + 4) != 0) return Fault("shared attributes");
  offset += 12;
  while (offset < end) {
    if (end - offset < 4) return Fault("an attribute's header");
    const auto name_length = At<std::uint8_t>(offset);
    const auto prefix = kPrefixes.find(At<std::uint8_t>(offset + 1));
    const auto value_length = At<std::uint16_t>(offset + 2);
    if (prefix == kPrefixes.end()) return Fault("an attribute's prefix");
    const std::uint64_t length = 4U + name_length + value_length;
    const std::uint64_t padded = (length + 3) / 4 * 4;
    if (padded > end - offset) return Fault("an attribute's length");
    std::string name = Concat(prefix->second, bytes_.substr(offset + 4, name_length));
    std::string value(bytes_.substr(offset + 4 + name_length, value_length));
    if (!inode.file.attributes.emplace(std::move(name), std::move(value)).second) return Fault("an attribute twice");
    offset += padded;
  }
  return absl::OkStatus();
}

StatusOr<std::string> Reader::ReadContent(const Inode& inode) {
  const std::uint64_t size = inode.content_size;
  const std::uint64_t tail = inode.is_inline ? size % kBlock : 0;
  if (inode.is_inline && tail == 0) return Fault("an inline part without bytes");
  if (size > bytes_.size()) return Fault("content larger than the metadata");
  std::string content;
  if (const std::uint64_t plain = size - tail; plain > 0) {
    const std::uint64_t blocks = (plain + kBlock - 1) / kBlock * kBlock;
    HUSK_RETURN_IF_ERROR(Claim(inode.raw * kBlock, blocks, "content"));
    content = bytes_.substr(inode.raw * kBlock, plain);
  }
  if (tail > 0) {
    HUSK_RETURN_IF_ERROR(Claim(inode.tail_at, tail, "inline content"));
    if (inode.tail_at / kBlock != (inode.tail_at + tail - 1) / kBlock) return Fault("inline content across two blocks");
    content += bytes_.substr(inode.tail_at, tail);
  }
  return content;
}

StatusOr<std::vector<Entry>> Reader::ParseDirectory(std::string_view content) {
  std::vector<Entry> entries;
  for (; !content.empty(); content.remove_prefix(std::min<std::size_t>(kBlock, content.size()))) {
    const std::string_view block = content.substr(0, kBlock);
    const auto number = [&block](std::size_t offset, std::size_t length) {
      std::uint64_t value = 0;
      std::memcpy(&value, block.data() + offset, length);
      return value;
    };
    if (block.size() < 12) return Fault("a directory block");
    const std::uint64_t names = number(8, 2);
    if (names < 12 || names % 12 != 0 || names > block.size()) return Fault("the first name's offset");
    for (std::uint64_t at = 0; at < names; at += 12) {
      const std::uint64_t start = number(at + 8, 2);
      const bool last = at + 12 == names;
      const std::uint64_t end = last ? block.size() : number(at + 20, 2);
      if (start < names || end > block.size() || start >= end) return Fault("a name's place");
      std::string name(block.substr(start, end - start));
      // In a full block the last name ends with a NUL; in a part of one it ends with the content.
      if (last) name.resize(std::min(name.find('\0'), name.size()));
      if (name.empty() || name.size() > 255 || name.find('\0') != std::string::npos || name.find('/') != name.npos) {
        return Fault("a name");
      }
      if (!entries.empty() && entries.back().name >= name) return Fault("names out of order");
      entries.push_back({std::move(name), number(at, 8), static_cast<std::uint8_t>(number(at + 10, 1))});
    }
  }
  return entries;
}

Status Reader::CheckOverlaps() {
  std::sort(claims_.begin(), claims_.end());
  for (std::size_t i = 1; i < claims_.size(); ++i) {
    if (claims_[i].first < claims_[i - 1].second) return Fault("two things in one place");
  }
  return absl::OkStatus();
}

StatusOr<std::map<std::string, ErofsFile>> Reader::Read() {
  HUSK_RETURN_IF_ERROR(ReadSuperblock());
  std::map<std::string, ErofsFile> files;
  std::map<std::uint64_t, std::pair<Inode, std::uint32_t>> others;  // by nid: what is no directory, names so far
  std::set<std::uint64_t> directories;
  std::set<std::uint32_t> numbers;
  std::vector<Visit> left = {{"", root_, root_}};
  while (!left.empty()) {
    const Visit visit = std::move(left.back());
    left.pop_back();
    if (!directories.insert(visit.nid).second) return Fault("a directory with two names");
    HUSK_ASSIGN_OR_RETURN(Inode inode, ReadInode(visit.nid));
    if (!S_ISDIR(inode.file.mode)) return Fault("a directory that is none");
    HUSK_ASSIGN_OR_RETURN(const std::string content, ReadContent(inode));
    HUSK_ASSIGN_OR_RETURN(const std::vector<Entry> entries, ParseDirectory(content));
    std::uint32_t links = 0;
    std::uint32_t dots = 0;
    for (const Entry& entry : entries) {
      const bool dot = entry.name == "." || entry.name == "..";
      if (ModeOf(entry.type) == S_IFDIR) ++links;
      if (dot) {
        ++dots;
        const std::uint64_t expected = entry.name == "." ? visit.nid : visit.parent;
        if (entry.nid != expected || ModeOf(entry.type) != S_IFDIR)
          return Fault(Concat(entry.name, " leads elsewhere"));
        continue;
      }
      const std::string path = Concat(visit.path, "/", entry.name);
      if (ModeOf(entry.type) == S_IFDIR) {
        left.push_back({path, entry.nid, visit.nid});
        continue;
      }
      auto other = others.find(entry.nid);
      if (other == others.end()) {
        HUSK_ASSIGN_OR_RETURN(Inode read, ReadInode(entry.nid));
        if (S_ISLNK(read.file.mode)) {
          HUSK_ASSIGN_OR_RETURN(read.file.symlink_target, ReadContent(read));
        }
        if (!numbers.insert(read.file.number).second) return Fault("an inode number twice");
        other = others.emplace(entry.nid, std::make_pair(std::move(read), 0U)).first;
      }
      ++other->second.second;
      if ((other->second.first.file.mode & S_IFMT) != ModeOf(entry.type)) return Fault("an entry's file type");
      files[path] = other->second.first.file;
    }
    if (dots != 2) return Fault("a directory without . and ..");
    if (inode.file.links != links) return Fault("links of a directory");
    if (!numbers.insert(inode.file.number).second) return Fault("an inode number twice");
    files[visit.path] = inode.file;
  }
  for (const auto& [nid, other] : others) {
    if (other.first.file.links != other.second) return Fault("links of a file");
  }
  if (inode_count_ != others.size() + directories.size()) return Fault("number of inodes");
  HUSK_RETURN_IF_ERROR(CheckOverlaps());
  return files;
}

}  // namespace

StatusOr<std::map<std::string, ErofsFile>> ReadErofs(std::string_view metadata, std::uint64_t disk_length) {
  return Reader(metadata, disk_length).Read();
}

}  // namespace husk::images::testing
