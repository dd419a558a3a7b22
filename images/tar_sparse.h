// The ways in which tar archives say where a sparse file's data lies: old GNU headers, and GNU's PAX 0.0, 0.1 and 1.0.
#ifndef HUSK_IMAGES_TAR_SPARSE_H_
#define HUSK_IMAGES_TAR_SPARSE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "images/tar_header.h"

namespace husk::images {

struct DataSegment {
  std::uint64_t offset = 0;  // in the file, bytes
  std::uint64_t length = 0;
};

// What the PAX records of a file say of its holes.
struct PaxSparse {
  bool sparse = false;
  bool map_in_data = false;  // version 1.0: the map stands before the data (PaxSparseMap)
  std::string path;          // the file's own name; empty: the header's
  std::uint64_t size = 0;    // with its holes
  std::vector<DataSegment> segments;
};
StatusOr<PaxSparse> ParsePaxSparse(const PaxRecords& records);

// An old GNU header or one of its extensions, 512 bytes. Appends to `segments`; true if an extension block follows.
StatusOr<bool> ParseGnuSparseBlock(std::string_view block, bool extension, std::vector<DataSegment>& segments);
// The size with its holes, of an old GNU header.
StatusOr<std::uint64_t> ParseGnuSparseSize(std::string_view block);

// Reads the map in front of the data of a version 1.0 sparse file, block by block.
class PaxSparseMap {
 public:
  // True when the map is complete: data begins with the next block.
  StatusOr<bool> AddBlock(std::string_view block);
  [[nodiscard]] const std::vector<DataSegment>& segments() const { return segments_; }

 private:
  Status AddNumber();

  std::string digits_;
  bool have_count_ = false;
  bool have_offset_ = false;
  std::uint64_t count_ = 0;
  std::uint64_t offset_ = 0;
  std::vector<DataSegment> segments_;
};

// OK if the segments are in order, within `size`, and have `stored` bytes together.
Status CheckSegments(const std::vector<DataSegment>& segments, std::uint64_t size, std::uint64_t stored);

}  // namespace husk::images

#endif  // HUSK_IMAGES_TAR_SPARSE_H_
