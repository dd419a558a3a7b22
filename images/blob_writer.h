// Writes files' bytes one after the other into a layer blob, each at a block's start.
#ifndef HUSK_IMAGES_BLOB_WRITER_H_
#define HUSK_IMAGES_BLOB_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::images {

// Holes of files become holes of the blob. Not thread safe.
class BlobWriter {
 public:
  // An empty file, open for writing; the caller closes it, later.
  explicit BlobWriter(int fd);

  // Where the next file of `size` bytes goes. RESOURCE_EXHAUSTED beyond what an EROFS image can address.
  StatusOr<std::uint64_t> BeginFile(std::uint64_t size);
  // `offset` is within the current file, and never less than the end of the last call's data.
  Status Write(std::uint64_t offset, std::string_view data);
  // Everything written, padded to whole blocks. Returns the blob's length.
  StatusOr<std::uint64_t> Finish();
  // Bytes of the blocks that data was written to, holes left out.
  [[nodiscard]] std::uint64_t stored_bytes() const { return stored_; }

 private:
  Status Flush();

  const int fd_;
  std::uint64_t file_start_ = 0;
  std::uint64_t end_ = 0;  // of the files so far, a multiple of the block size
  std::string buffer_;
  std::uint64_t buffer_start_ = 0;  // in the blob
  std::uint64_t stored_ = 0;
  std::uint64_t stored_end_ = 0;      // of the last block that is counted
  std::uint64_t writeback_from_ = 0;  // the kernel has been told to write what is before this
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_BLOB_WRITER_H_
