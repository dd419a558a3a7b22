#include "images/tar_reader.h"

#include <algorithm>
#include <utility>

#include "images/text.h"

namespace husk::images {
namespace {

// A PAX header or long name beyond this is hostile: it holds a few paths and extended attributes.
constexpr std::uint64_t kMaximumMetadata = std::uint64_t{4} << 20;
constexpr std::uint64_t kMaximumGlobals = std::uint64_t{64} << 10;

Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(Concat("malformed tar: ", what));
}

bool IsZero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == '\0'; });
}

std::uint64_t PaddingAfter(std::uint64_t size) {
  return (kTarBlock - size % kTarBlock) % kTarBlock;
}

}  // namespace

Status TarReader::Write(std::string_view data) {
  while (!data.empty()) HUSK_RETURN_IF_ERROR(Step(data));
  return absl::OkStatus();
}

Status TarReader::Finish() {
  if (state_ == State::kEnd) return absl::OkStatus();
  const bool header_pending = !block_.empty() || !local_.empty() || !long_name_.empty() || !long_link_.empty();
  // Some writers leave the padding of the last entry away.
  if ((state_ == State::kSkip || state_ == State::kHeader) && !header_pending) return absl::OkStatus();
  return Malformed("it ends within an entry");
}

Status TarReader::Step(std::string_view& data) {
  switch (state_) {
    case State::kHeader:
      return FillBlock(data) ? HandleHeader() : absl::OkStatus();
    case State::kMetadata:
      TakeMetadata(data);
      return remaining_ == 0 ? HandleMetadata() : absl::OkStatus();
    case State::kSparseExtension: {
      if (!FillBlock(data)) return absl::OkStatus();
      HUSK_ASSIGN_OR_RETURN(const bool more, ParseGnuSparseBlock(block_, /*extension=*/true, segments_));
      block_.clear();
      return more ? absl::OkStatus() : StartData();
    }
    case State::kSparseMap: {
      if (!FillBlock(data)) return absl::OkStatus();
      if (remaining_ < kTarBlock) return Malformed("the map of a sparse file is cut short");
      remaining_ -= kTarBlock;
      HUSK_ASSIGN_OR_RETURN(const bool complete, sparse_map_.AddBlock(block_));
      block_.clear();
      if (!complete) return absl::OkStatus();
      segments_ = sparse_map_.segments();
      return StartData();
    }
    case State::kData:
      return TakeData(data);
    case State::kSkip: {
      const std::uint64_t length = std::min<std::uint64_t>(padding_, data.size());
      data.remove_prefix(length);
      padding_ -= length;
      if (padding_ == 0) state_ = State::kHeader;
      return absl::OkStatus();
    }
    case State::kEnd:
      // A raw file system image may begin with a kilobyte of zeros, which looks like the end of an empty archive.
      if (!any_entry_ && !IsZero(data)) return Malformed("data after an empty archive: this is no tar archive");
      data = {};
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

bool TarReader::FillBlock(std::string_view& data) {
  const std::size_t length = std::min(kTarBlock - block_.size(), data.size());
  block_ += data.substr(0, length);
  data.remove_prefix(length);
  return block_.size() == kTarBlock;
}

Status TarReader::HandleHeader() {
  if (IsZero(block_)) {
    // One block of zeros ends the archive for most readers; POSIX wants two, and nothing comes after either.
    if (!local_.empty() || !long_name_.empty() || !long_link_.empty()) return Malformed("a header without its entry");
    state_ = State::kEnd;
    block_.clear();
    return absl::OkStatus();
  }
  HUSK_ASSIGN_OR_RETURN(TarHeader header, ParseTarHeader(block_));
  any_entry_ = true;
  switch (header.type) {
    case 'x':
      return StartMetadata(Metadata::kPaxLocal, header);
    case 'g':
      return StartMetadata(Metadata::kPaxGlobal, header);
    case 'L':
      return StartMetadata(Metadata::kLongName, header);
    case 'K':
      return StartMetadata(Metadata::kLongLink, header);
    case 'V':  // a volume's label
      block_.clear();
      return absl::OkStatus();
    default:
      return StartEntry(std::move(header));
  }
}

Status TarReader::StartMetadata(Metadata kind, const TarHeader& header) {
  if (header.size > kMaximumMetadata) return Malformed("an extended header is larger than 4 MiB");
  metadata_ = kind;
  metadata_bytes_.clear();
  remaining_ = header.size;
  padding_ = PaddingAfter(header.size);
  block_.clear();
  if (remaining_ == 0) return HandleMetadata();
  state_ = State::kMetadata;
  return absl::OkStatus();
}

void TarReader::TakeMetadata(std::string_view& data) {
  const std::uint64_t length = std::min<std::uint64_t>(remaining_, data.size());
  metadata_bytes_ += data.substr(0, length);
  data.remove_prefix(length);
  remaining_ -= length;
}

Status TarReader::HandleMetadata() {
  const std::string bytes = std::exchange(metadata_bytes_, {});
  state_ = padding_ > 0 ? State::kSkip : State::kHeader;
  switch (metadata_) {
    case Metadata::kPaxLocal: {
      HUSK_ASSIGN_OR_RETURN(local_, ParsePaxRecords(bytes));
      return absl::OkStatus();
    }
    case Metadata::kPaxGlobal: {
      // They are copied for each entry: a lot of them would make an archive's cost quadratic.
      global_bytes_ += bytes.size();
      if (global_bytes_ > kMaximumGlobals) return Malformed("more than 64 KiB of global headers");
      HUSK_ASSIGN_OR_RETURN(const PaxRecords records, ParsePaxRecords(bytes));
      global_.Add(records);
      return absl::OkStatus();
    }
    case Metadata::kLongName:
      long_name_ = bytes.substr(0, bytes.find('\0'));
      return absl::OkStatus();
    case Metadata::kLongLink:
      long_link_ = bytes.substr(0, bytes.find('\0'));
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

Status TarReader::StartEntry(TarHeader header) {
  if (!long_name_.empty()) header.path = std::exchange(long_name_, {});
  if (!long_link_.empty()) header.link_target = std::exchange(long_link_, {});
  PaxOverrides overrides = global_;
  overrides.Add(std::exchange(local_, {}));
  HUSK_ASSIGN_OR_RETURN(entry_, MakeTarEntry(header, overrides));
  remaining_ = header.size;
  padding_ = PaddingAfter(header.size);
  segments_.clear();
  bool extension = false;
  bool map_in_data = false;
  if (header.type == 'S') {
    HUSK_ASSIGN_OR_RETURN(entry_.size, ParseGnuSparseSize(block_));
    HUSK_ASSIGN_OR_RETURN(extension, ParseGnuSparseBlock(block_, /*extension=*/false, segments_));
  } else if (entry_.type == EntryType::kRegular) {
    HUSK_ASSIGN_OR_RETURN(PaxSparse sparse, ParsePaxSparse(overrides.sparse));
    if (sparse.sparse) {
      entry_.size = sparse.size;
      if (!sparse.path.empty()) entry_.path = sparse.path;
      map_in_data = sparse.map_in_data;
      segments_ = std::move(sparse.segments);
    } else if (entry_.size > 0) {
      segments_ = {{0, entry_.size}};
    }
  }
  block_.clear();
  if (extension) {
    state_ = State::kSparseExtension;
    return absl::OkStatus();
  }
  if (map_in_data) {
    sparse_map_ = PaxSparseMap();
    state_ = State::kSparseMap;
    return absl::OkStatus();
  }
  return StartData();
}

Status TarReader::StartData() {
  HUSK_RETURN_IF_ERROR_DOING(CheckSegments(segments_, entry_.size, remaining_), Excerpt(entry_.path));
  segment_ = 0;
  segment_done_ = 0;
  HUSK_RETURN_IF_ERROR(visitor_.OnEntry(std::move(entry_)));
  if (remaining_ > 0) {
    state_ = State::kData;
    return absl::OkStatus();
  }
  AfterData();
  return visitor_.OnEntryEnd();
}

void TarReader::AfterData() {
  state_ = padding_ > 0 ? State::kSkip : State::kHeader;
}

Status TarReader::TakeData(std::string_view& data) {
  while (segment_done_ == segments_[segment_].length) {
    ++segment_;
    segment_done_ = 0;
  }
  const DataSegment& segment = segments_[segment_];
  const std::uint64_t length = std::min<std::uint64_t>(segment.length - segment_done_, data.size());
  HUSK_RETURN_IF_ERROR(visitor_.OnData(segment.offset + segment_done_, data.substr(0, length)));
  data.remove_prefix(length);
  segment_done_ += length;
  remaining_ -= length;
  if (remaining_ > 0) return absl::OkStatus();
  AfterData();
  return visitor_.OnEntryEnd();
}

}  // namespace husk::images
