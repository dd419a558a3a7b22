#include "images/tar_header.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::string_view kAttributePrefix = "SCHILY.xattr.";
constexpr std::string_view kSparsePrefix = "GNU.sparse.";

Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(Concat("malformed tar: ", what));
}

std::string UntilNul(std::string_view field) {
  return std::string(field.substr(0, field.find('\0')));
}

// Big-endian two's complement below the marker bit.
StatusOr<std::int64_t> ParseBase256(std::string_view field) {
  const bool negative = (static_cast<unsigned char>(field.front()) & 0x40) != 0;
  std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
  for (std::size_t i = 0; i < field.size(); ++i) {
    auto byte = static_cast<unsigned char>(field[i]);
    if (i == 0) byte = negative ? byte | 0x80U : byte & 0x7fU;
    const std::uint64_t top = value >> 55;
    if (top != (negative ? 0x1ffU : 0)) return Malformed("a base-256 number is too large");
    value = (value << 8) | byte;
  }
  return static_cast<std::int64_t>(value);
}

template <typename Number>
std::optional<Number> ParseDecimal(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool ChecksumMatches(std::string_view block, std::int64_t expected) {
  constexpr std::size_t kField = 148;
  constexpr std::size_t kFieldEnd = 156;
  std::int64_t unsigned_sum = 0;
  std::int64_t signed_sum = 0;  // some old archivers summed signed characters
  for (std::size_t i = 0; i < block.size(); ++i) {
    const char c = i >= kField && i < kFieldEnd ? ' ' : block[i];
    unsigned_sum += static_cast<unsigned char>(c);
    signed_sum += static_cast<signed char>(c);
  }
  return expected == unsigned_sum || expected == signed_sum;
}

Status ParseUnsigned(std::string_view field, std::string_view name, std::uint64_t& value) {
  HUSK_ASSIGN_OR_RETURN_DOING(const std::int64_t number, ParseTarNumber(field), name);
  if (number < 0) return Malformed(Concat("negative ", name));
  value = static_cast<std::uint64_t>(number);
  return absl::OkStatus();
}

// "seconds[.fraction]", both possibly negative together.
Status ParsePaxTime(std::string_view text, TarEntry& entry) {
  const std::size_t dot = text.find('.');
  const auto seconds = ParseDecimal<std::int64_t>(text.substr(0, dot));
  if (!seconds) return Malformed("mtime of a PAX header");
  std::uint32_t nanoseconds = 0;
  if (dot != std::string_view::npos) {
    std::uint32_t unit = 100'000'000;
    for (const char c : text.substr(dot + 1)) {
      if (c < '0' || c > '9') return Malformed("mtime of a PAX header");
      nanoseconds += static_cast<std::uint32_t>(c - '0') * unit;
      unit /= 10;
    }
  }
  entry.mtime = *seconds;
  entry.mtime_nanoseconds = nanoseconds;
  if (text.starts_with('-') && nanoseconds > 0) {
    if (entry.mtime == std::numeric_limits<std::int64_t>::min()) return Malformed("mtime of a PAX header");
    entry.mtime -= 1;
    entry.mtime_nanoseconds = 1'000'000'000 - nanoseconds;
  }
  return absl::OkStatus();
}

Status Override(const PaxOverrides& overrides, const std::string& key, std::uint64_t& number) {
  const auto found = overrides.values.find(key);
  if (found == overrides.values.end()) return absl::OkStatus();
  const auto value = ParseDecimal<std::uint64_t>(found->second);
  if (!value || *value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return Malformed(Concat(key, " of a PAX header"));
  }
  number = *value;
  return absl::OkStatus();
}

StatusOr<EntryType> TypeOf(char type, std::string_view path) {
  switch (type) {
    case '0':
    case '\0':
    case '7':
      // How archives older than POSIX wrote a directory.
      return path.ends_with('/') ? EntryType::kDirectory : EntryType::kRegular;
    case 'S':
      return EntryType::kRegular;
    case '1':
      return EntryType::kHardLink;
    case '2':
      return EntryType::kSymlink;
    case '3':
      return EntryType::kCharacterDevice;
    case '4':
      return EntryType::kBlockDevice;
    case '5':
      return EntryType::kDirectory;
    case '6':
      return EntryType::kFifo;
    default:
      return Malformed(Concat("entry of unknown type ", static_cast<int>(type)));
  }
}

}  // namespace

StatusOr<std::int64_t> ParseTarNumber(std::string_view field) {
  if (!field.empty() && (static_cast<unsigned char>(field.front()) & 0x80) != 0) return ParseBase256(field);
  const std::size_t start = field.find_first_not_of(' ');
  if (start == std::string_view::npos) return 0;
  field.remove_prefix(start);
  field = field.substr(0, field.find_first_of(std::string_view("\0 ", 2)));
  if (field.empty()) return 0;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value, 8);
  if (error != std::errc() || end != field.data() + field.size()) return Malformed("a number is not octal");
  return value;
}

StatusOr<TarHeader> ParseTarHeader(std::string_view block) {
  HUSK_ASSIGN_OR_RETURN_DOING(const std::int64_t checksum, ParseTarNumber(block.substr(148, 8)), "checksum");
  if (!ChecksumMatches(block, checksum)) return Malformed("the checksum of a header is wrong: this is no tar archive");
  TarHeader header;
  header.type = block[156];
  header.path = UntilNul(block.substr(0, 100));
  header.link_target = UntilNul(block.substr(157, 100));
  std::uint64_t mode = 0;
  HUSK_RETURN_IF_ERROR(ParseUnsigned(block.substr(100, 8), "mode", mode));
  header.mode = static_cast<std::uint32_t>(mode & 07777);
  HUSK_RETURN_IF_ERROR(ParseUnsigned(block.substr(108, 8), "uid", header.user));
  HUSK_RETURN_IF_ERROR(ParseUnsigned(block.substr(116, 8), "gid", header.group));
  HUSK_RETURN_IF_ERROR(ParseUnsigned(block.substr(124, 12), "size", header.size));
  HUSK_ASSIGN_OR_RETURN_DOING(header.mtime, ParseTarNumber(block.substr(136, 12)), "mtime");
  if (header.type == '3' || header.type == '4') {
    HUSK_RETURN_IF_ERROR(ParseUnsigned(block.substr(329, 8), "device", header.device_major));
    HUSK_RETURN_IF_ERROR(ParseUnsigned(block.substr(337, 8), "device", header.device_minor));
  }
  // GNU's own format ("ustar  ") has other things where POSIX has the prefix.
  if (block.substr(257, 6) == std::string_view("ustar\0", 6)) {
    const bool star = block.substr(508, 4) == std::string_view("tar\0", 4);
    const std::string prefix = UntilNul(block.substr(345, star ? 131 : 155));
    if (!prefix.empty()) header.path = prefix + "/" + header.path;
  }
  return header;
}

StatusOr<PaxRecords> ParsePaxRecords(std::string_view payload) {
  PaxRecords records;
  while (!payload.empty()) {
    const std::size_t space = payload.find(' ');
    if (space == std::string_view::npos) return Malformed("a PAX record has no length");
    const auto length = ParseDecimal<std::uint64_t>(payload.substr(0, space));
    if (!length || *length > payload.size() || *length < space + 3) return Malformed("length of a PAX record");
    const std::string_view record = payload.substr(space + 1, *length - space - 1);
    const std::size_t equals = record.find('=');
    if (equals == 0 || equals == std::string_view::npos || record.back() != '\n') return Malformed("a PAX record");
    records.emplace_back(record.substr(0, equals), record.substr(equals + 1, record.size() - equals - 2));
    payload.remove_prefix(*length);
  }
  return records;
}

void PaxOverrides::Add(const PaxRecords& records) {
  for (const auto& [key, value] : records) {
    if (key.starts_with(kAttributePrefix)) {
      // An attribute may have an empty value.
      attributes[key.substr(kAttributePrefix.size())] = value;
    } else if (key.starts_with(kSparsePrefix)) {
      sparse.emplace_back(key, value);
    } else if (value.empty()) {
      values.erase(key);
    } else if (key == "path" || key == "linkpath" || key == "size" || key == "uid" || key == "gid" || key == "mtime") {
      values[key] = value;
    }
  }
}

StatusOr<TarEntry> MakeTarEntry(TarHeader& header, const PaxOverrides& overrides) {
  const auto& values = overrides.values;
  TarEntry entry;
  if (const auto path = values.find("path"); path != values.end()) header.path = path->second;
  if (const auto target = values.find("linkpath"); target != values.end()) header.link_target = target->second;
  entry.path = header.path;
  HUSK_ASSIGN_OR_RETURN(entry.type, TypeOf(header.type, entry.path));
  if (entry.type == EntryType::kHardLink || entry.type == EntryType::kSymlink) entry.link_target = header.link_target;
  HUSK_RETURN_IF_ERROR(Override(overrides, "size", header.size));
  HUSK_RETURN_IF_ERROR(Override(overrides, "uid", header.user));
  HUSK_RETURN_IF_ERROR(Override(overrides, "gid", header.group));
  // -1 means "no user" to the kernel.
  constexpr std::uint64_t kMaximumId = std::numeric_limits<std::uint32_t>::max() - 1;
  if (header.user > kMaximumId || header.group > kMaximumId) return Malformed("a uid or gid is too large");
  if (header.device_major > 0xfff || header.device_minor > 0xfffff) return Malformed("a device number is too large");
  entry.mode = header.mode;
  entry.user = static_cast<std::uint32_t>(header.user);
  entry.group = static_cast<std::uint32_t>(header.group);
  entry.device_major = static_cast<std::uint32_t>(header.device_major);
  entry.device_minor = static_cast<std::uint32_t>(header.device_minor);
  entry.mtime = header.mtime;
  if (const auto time = values.find("mtime"); time != values.end()) {
    HUSK_RETURN_IF_ERROR(ParsePaxTime(time->second, entry));
  }
  // Only regular files are followed by data; other types may carry a size that means nothing.
  if (entry.type != EntryType::kRegular) header.size = 0;
  entry.size = header.size;
  for (const auto& [name, value] : overrides.attributes) entry.attributes.push_back({name, value});
  return entry;
}

}  // namespace husk::images
