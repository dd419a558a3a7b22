// Reads the metadata of an EROFS image as strictly as it can: what a kernel or fsck.erofs might overlook is an error.
// Shares no code with the writer.
#ifndef HUSK_IMAGES_TESTING_EROFS_READER_H_
#define HUSK_IMAGES_TESTING_EROFS_READER_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::images::testing {

struct ErofsFile {
  std::uint32_t mode = 0;
  std::uint32_t user = 0;
  std::uint32_t group = 0;
  std::int64_t mtime = 0;
  std::uint32_t mtime_nanoseconds = 0;
  std::uint32_t links = 0;
  std::uint32_t number = 0;       // st_ino
  std::uint64_t size = 0;         // regular files
  std::uint64_t data_offset = 0;  // regular files with data: on the disk, bytes
  std::uint32_t device = 0;       // as on the disk
  std::string symlink_target;
  std::map<std::string, std::string> attributes;
};

// Every file by its path, "" being the root. `metadata` are the first bytes of a disk of `disk_length` bytes. Checks
// that everything lies where it may, that nothing lies over something else, order, counts and the checksum.
StatusOr<std::map<std::string, ErofsFile>> ReadErofs(std::string_view metadata, std::uint64_t disk_length);

}  // namespace husk::images::testing

#endif  // HUSK_IMAGES_TESTING_EROFS_READER_H_
