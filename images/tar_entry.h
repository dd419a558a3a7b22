// What a tar archive says about one file. Bytes as the archive has them, numbers checked for their range.
#ifndef HUSK_IMAGES_TAR_ENTRY_H_
#define HUSK_IMAGES_TAR_ENTRY_H_

#include <cstdint>
#include <string>
#include <vector>

namespace husk::images {

enum class EntryType : std::uint8_t {
  kRegular = 1,
  kHardLink = 2,
  kSymlink = 3,
  kCharacterDevice = 4,
  kBlockDevice = 5,
  kDirectory = 6,
  kFifo = 7,
};

struct ExtendedAttribute {
  std::string name;   // with its namespace, as in "security.capability"
  std::string value;  // any bytes
  bool operator==(const ExtendedAttribute&) const = default;
};

struct TarEntry {
  EntryType type = EntryType::kRegular;
  std::string path;
  std::string link_target;  // hard links and symlinks
  std::uint32_t mode = 0;   // permission bits, 07777 at most
  std::uint32_t user = 0;   // uid
  std::uint32_t group = 0;  // gid
  std::int64_t mtime = 0;   // seconds since 1970
  std::uint32_t mtime_nanoseconds = 0;
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  std::uint64_t size = 0;                     // regular files: bytes, holes included; else 0
  std::vector<ExtendedAttribute> attributes;  // sorted by name
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_TAR_ENTRY_H_
