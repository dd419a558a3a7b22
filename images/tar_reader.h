// A tar archive taken apart as it streams by: V7, ustar, GNU and PAX.
//
// Husk's own, because names are bytes here and stay so (docs/adr/0020).
#ifndef HUSK_IMAGES_TAR_READER_H_
#define HUSK_IMAGES_TAR_READER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "images/tar_entry.h"
#include "images/tar_header.h"
#include "images/tar_sparse.h"

namespace husk::images {

// Malformed archives are INVALID_ARGUMENT. Memory is bounded whatever the archive says. Not thread safe.
class TarReader {
 public:
  class Visitor {
   public:
    Visitor() = default;
    Visitor(const Visitor&) = delete;
    Visitor& operator=(const Visitor&) = delete;
    virtual ~Visitor() = default;
    virtual Status OnEntry(TarEntry entry) = 0;
    // Data of the last entry, in order of `offset`; what is left out is zeros. Valid during the call.
    virtual Status OnData(std::uint64_t offset, std::string_view data) = 0;
    virtual Status OnEntryEnd() = 0;
  };

  // `visitor` outlives this. Its errors are returned by the Write that caused them.
  explicit TarReader(Visitor& visitor) : visitor_(visitor) {}

  Status Write(std::string_view data);
  // The archive is complete. An end without end-of-archive blocks is accepted, as by other readers, between entries.
  Status Finish();

 private:
  enum class State { kHeader, kMetadata, kSparseMap, kSparseExtension, kData, kSkip, kEnd };

  // What a payload that is not a file's data means.
  enum class Metadata { kPaxLocal, kPaxGlobal, kLongName, kLongLink };

  Status Step(std::string_view& data);
  // Moves up to 512 bytes in all from `data` to block_; true when the block is full.
  bool FillBlock(std::string_view& data);
  Status HandleHeader();
  Status StartMetadata(Metadata kind, const TarHeader& header);
  Status HandleMetadata();
  Status StartEntry(TarHeader header);
  Status StartData();
  Status TakeData(std::string_view& data);
  void AfterData();
  void TakeMetadata(std::string_view& data);

  Visitor& visitor_;
  State state_ = State::kHeader;
  std::string block_;
  std::uint64_t remaining_ = 0;  // stored bytes of the payload, not yet seen
  std::uint64_t padding_ = 0;    // after the payload, up to the block's end
  Metadata metadata_ = Metadata::kPaxLocal;
  std::string metadata_bytes_;
  PaxOverrides global_;
  std::uint64_t global_bytes_ = 0;
  PaxRecords local_;
  std::string long_name_;
  std::string long_link_;
  TarEntry entry_;
  PaxSparseMap sparse_map_;
  std::vector<DataSegment> segments_;
  std::size_t segment_ = 0;
  std::uint64_t segment_done_ = 0;
  bool any_entry_ = false;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_TAR_READER_H_
