#include "images/tar_sparse.h"

#include <charconv>
#include <limits>

#include "images/text.h"

namespace husk::images {
namespace {

// One per 4 KiB of data at most makes sense; this bounds memory.
constexpr std::size_t kMaximumSegments = 1U << 20;
constexpr std::uint64_t kMaximumSize = std::uint64_t{1} << 62;

Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(Concat("malformed tar: ", what, " of a sparse file"));
}

StatusOr<std::uint64_t> ParseNumber(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > kMaximumSize) return Malformed("a number");
  return value;
}

Status AddSegment(std::uint64_t offset, std::uint64_t length, std::vector<DataSegment>& segments) {
  if (segments.size() == kMaximumSegments) return Malformed("too many segments");
  segments.push_back({offset, length});
  return absl::OkStatus();
}

// "offset,length,offset,length,..."
Status ParseMap(std::string_view text, std::vector<DataSegment>& segments) {
  if (text.empty()) return absl::OkStatus();
  bool have_offset = false;
  std::uint64_t offset = 0;
  for (const std::string_view piece : SplitNonEmpty(text, ',')) {
    HUSK_ASSIGN_OR_RETURN(const std::uint64_t number, ParseNumber(piece));
    if (have_offset) HUSK_RETURN_IF_ERROR(AddSegment(offset, number, segments));
    offset = number;
    have_offset = !have_offset;
  }
  return have_offset ? Malformed("the map") : absl::OkStatus();
}

}  // namespace

StatusOr<PaxSparse> ParsePaxSparse(const PaxRecords& records) {
  PaxSparse result;
  std::uint64_t offset = 0;
  for (const auto& [key, value] : records) {
    result.sparse = true;
    const std::string_view name = std::string_view(key).substr(std::string_view("GNU.sparse.").size());
    if (name == "name") {
      result.path = value;
    } else if (name == "major") {
      result.map_in_data = value == "1";
      if (value != "0" && value != "1") return Malformed("unknown version");
    } else if (name == "map") {
      HUSK_RETURN_IF_ERROR(ParseMap(value, result.segments));
    } else if (name == "size" || name == "realsize") {
      HUSK_ASSIGN_OR_RETURN(result.size, ParseNumber(value));
    } else if (name == "offset") {
      HUSK_ASSIGN_OR_RETURN(offset, ParseNumber(value));
    } else if (name == "numbytes") {
      HUSK_ASSIGN_OR_RETURN(const std::uint64_t length, ParseNumber(value));
      HUSK_RETURN_IF_ERROR(AddSegment(offset, length, result.segments));
    }
  }
  return result;
}

StatusOr<bool> ParseGnuSparseBlock(std::string_view block, bool extension, std::vector<DataSegment>& segments) {
  const std::size_t start = extension ? 0 : 386;
  const std::size_t count = extension ? 21 : 4;
  constexpr std::size_t kNumber = 12;
  for (std::size_t i = 0; i < count; ++i) {
    const std::string_view field = block.substr(start + i * 2 * kNumber, 2 * kNumber);
    if (field.front() == '\0') break;
    HUSK_ASSIGN_OR_RETURN(const std::int64_t offset, ParseTarNumber(field.substr(0, kNumber)));
    HUSK_ASSIGN_OR_RETURN(const std::int64_t length, ParseTarNumber(field.substr(kNumber)));
    if (offset < 0 || length < 0) return Malformed("negative segment");
    HUSK_RETURN_IF_ERROR(AddSegment(static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length), segments));
  }
  return block[extension ? 504 : 482] != '\0';
}

StatusOr<std::uint64_t> ParseGnuSparseSize(std::string_view block) {
  HUSK_ASSIGN_OR_RETURN(const std::int64_t size, ParseTarNumber(block.substr(483, 12)));
  if (size < 0) return Malformed("negative size");
  return static_cast<std::uint64_t>(size);
}

StatusOr<bool> PaxSparseMap::AddBlock(std::string_view block) {
  for (const char c : block) {
    if (c != '\n') {
      if (digits_.size() > std::numeric_limits<std::uint64_t>::digits10) return Malformed("the map");
      digits_ += c;
      continue;
    }
    HUSK_RETURN_IF_ERROR(AddNumber());
    if (segments_.size() == count_) return true;
  }
  return false;
}

Status PaxSparseMap::AddNumber() {
  HUSK_ASSIGN_OR_RETURN(const std::uint64_t number, ParseNumber(digits_));
  digits_.clear();
  if (!have_count_) {
    if (number > kMaximumSegments) return Malformed("too many segments");
    have_count_ = true;
    count_ = number;
    return absl::OkStatus();
  }
  if (have_offset_) HUSK_RETURN_IF_ERROR(AddSegment(offset_, number, segments_));
  offset_ = number;
  have_offset_ = !have_offset_;
  return absl::OkStatus();
}

Status CheckSegments(const std::vector<DataSegment>& segments, std::uint64_t size, std::uint64_t stored) {
  if (size > kMaximumSize) return Malformed("the size");
  std::uint64_t end = 0;
  std::uint64_t total = 0;
  for (const DataSegment& segment : segments) {
    if (segment.offset < end || segment.offset > size || segment.length > size - segment.offset) {
      return Malformed("a segment");
    }
    end = segment.offset + segment.length;
    total += segment.length;
  }
  return total == stored ? absl::OkStatus() : Malformed("the stored size");
}

}  // namespace husk::images
