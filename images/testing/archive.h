// Archives made header by header, so that they can be wrong.
#ifndef HUSK_IMAGES_TESTING_ARCHIVE_H_
#define HUSK_IMAGES_TESTING_ARCHIVE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace husk::images::testing {

struct ArchiveEntry {
  std::string path;
  char type = '0';
  std::string data;
  std::string link_target;
  std::uint32_t mode = 0644;
  std::uint64_t user = 0;
  std::uint64_t group = 0;
  std::uint64_t mtime = 1'700'000'000;
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  // PAX records in front of the entry.
  std::vector<std::pair<std::string, std::string>> pax;
};

// One entry, padded. Paths longer than 100 bytes need a "path" record.
std::string TarEntryBytes(const ArchiveEntry& entry);

// The entries and the end-of-archive blocks.
std::string MakeTar(const std::vector<ArchiveEntry>& entries);

ArchiveEntry File(std::string path, std::string data = "data");
ArchiveEntry Directory(std::string path, std::uint32_t mode = 0755);
ArchiveEntry Symlink(std::string path, std::string target);
ArchiveEntry HardLink(std::string path, std::string target);

// One PAX record, "length key=value\n".
std::string PaxRecord(const std::string& key, const std::string& value);

// Compressed with zlib and libzstd; the code under test uses ISA-L for gzip.
std::string Gzip(std::string_view bytes);
std::string Zstd(std::string_view bytes);

}  // namespace husk::images::testing

#endif  // HUSK_IMAGES_TESTING_ARCHIVE_H_
