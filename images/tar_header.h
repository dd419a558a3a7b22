// The 512-byte header blocks of tar, and the PAX records that extend them.
#ifndef HUSK_IMAGES_TAR_HEADER_H_
#define HUSK_IMAGES_TAR_HEADER_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/common/status.h"
#include "images/tar_entry.h"

namespace husk::images {

inline constexpr std::size_t kTarBlock = 512;

// A header's fields as they stand, strings up to their NUL.
struct TarHeader {
  char type = '0';
  std::string path;  // the ustar prefix is already in front
  std::string link_target;
  std::uint32_t mode = 0;
  std::uint64_t user = 0;
  std::uint64_t group = 0;
  std::uint64_t size = 0;  // stored bytes that follow
  std::int64_t mtime = 0;
  std::uint64_t device_major = 0;
  std::uint64_t device_minor = 0;
};

// An octal or base-256 number. INVALID_ARGUMENT if it is none or does not fit.
StatusOr<std::int64_t> ParseTarNumber(std::string_view field);

// `block` has 512 bytes. INVALID_ARGUMENT if the checksum or a number is wrong.
StatusOr<TarHeader> ParseTarHeader(std::string_view block);

// PAX records in their order; a key may come again (sparse maps do so).
using PaxRecords = std::vector<std::pair<std::string, std::string>>;
StatusOr<PaxRecords> ParsePaxRecords(std::string_view payload);

// What PAX records say of the next entry.
struct PaxOverrides {
  std::map<std::string, std::string> values;      // path, linkpath, size, uid, gid, mtime; the last of each
  std::map<std::string, std::string> attributes;  // extended attributes by name
  PaxRecords sparse;                              // GNU.sparse.*, in their order

  // An empty value takes an earlier one away.
  void Add(const PaxRecords& records);
};

// The entry that header and overrides make together. `size` is the stored size, for the caller to skip.
StatusOr<TarEntry> MakeTarEntry(TarHeader& header, const PaxOverrides& overrides);

}  // namespace husk::images

#endif  // HUSK_IMAGES_TAR_HEADER_H_
