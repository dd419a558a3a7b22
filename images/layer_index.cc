#include "images/layer_index.h"

#include <algorithm>

#include "images/digest.h"
#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::string_view kMagic = "HUSKLAYR";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kDigestLength = 71;

bool IsNormalPath(std::string_view path) {
  if (path.size() > kMaximumPath || path.find('\0') != std::string_view::npos) return false;
  while (!path.empty()) {
    const std::size_t end = path.find('/');
    const std::string_view name = path.substr(0, end);
    if (name.empty() || name == "." || name == ".." || name.size() > kMaximumName) return false;
    if (end == std::string_view::npos) return true;
    path.remove_prefix(end + 1);
    if (path.empty()) return false;
  }
  return true;
}

// What the readers of an index rely on.
bool IsSound(const LayerEntry& entry) {
  const TarEntry& file = entry.file;
  if (file.type < EntryType::kRegular || file.type > EntryType::kFifo || file.mode > 07777) return false;
  if (!IsNormalPath(file.path) || file.link_target.size() > kMaximumPath) return false;
  if (file.type == EntryType::kHardLink && !IsNormalPath(file.link_target)) return false;
  if (file.type != EntryType::kRegular && file.size > 0) return false;
  if (file.mtime_nanoseconds >= 1'000'000'000) return false;
  return std::all_of(file.attributes.begin(), file.attributes.end(), [](const ExtendedAttribute& attribute) {
    return attribute.name.size() <= kMaximumName && attribute.value.size() <= kMaximumAttributeValue;
  });
}

}  // namespace

Status LayerIndexWriter::Add(const LayerEntry& entry) {
  const TarEntry& file = entry.file;
  PutNumber(static_cast<std::uint8_t>(file.type), entries_);
  PutNumber(file.mode, entries_);
  PutNumber(file.user, entries_);
  PutNumber(file.group, entries_);
  PutNumber(static_cast<std::uint64_t>(file.mtime), entries_);
  PutNumber(file.mtime_nanoseconds, entries_);
  PutNumber(file.device_major, entries_);
  PutNumber(file.device_minor, entries_);
  PutNumber(file.size, entries_);
  PutNumber(entry.data_offset, entries_);
  PutString(file.path, entries_);
  PutString(file.link_target, entries_);
  PutNumber(static_cast<std::uint32_t>(file.attributes.size()), entries_);
  for (const ExtendedAttribute& attribute : file.attributes) {
    PutString(attribute.name, entries_);
    PutString(attribute.value, entries_);
  }
  ++count_;
  if (count_ > limits_.entries) {
    return absl::ResourceExhaustedError(Concat("the layer has more than ", limits_.entries, " entries"));
  }
  if (entries_.size() <= limits_.index_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      Concat("the layer's names and attributes exceed ", limits_.index_bytes, " bytes after ", count_, " entries"));
}

std::string LayerIndexWriter::Finish(std::uint64_t blob_length) {
  std::string bytes(kMagic);
  PutNumber(kVersion, bytes);
  PutNumber(blob_length, bytes);
  PutNumber(count_, bytes);
  PutNumber(static_cast<std::uint64_t>(entries_.size()), bytes);
  bytes += entries_;
  entries_.clear();
  bytes += DigestOf(bytes);
  return bytes;
}

StatusOr<LayerIndexReader> LayerIndexReader::Parse(std::string_view bytes) {
  if (bytes.size() < kMagic.size() + kDigestLength || !bytes.starts_with(kMagic)) {
    return absl::DataLossError("not a layer index");
  }
  const std::string_view digest = bytes.substr(bytes.size() - kDigestLength);
  bytes.remove_suffix(kDigestLength);
  if (DigestOf(bytes) != digest) return absl::DataLossError("a layer index is damaged");
  bytes.remove_prefix(kMagic.size());
  ByteReader header(bytes);
  const auto version = header.Get<std::uint32_t>();
  if (version != kVersion) return absl::DataLossError(Concat("a layer index has version ", version));
  const auto blob_length = header.Get<std::uint64_t>();
  const auto count = header.Get<std::uint64_t>();
  const auto length = header.Get<std::uint64_t>();
  if (!header.ok() || length != header.remaining()) return absl::DataLossError("a layer index has a wrong length");
  return LayerIndexReader(bytes.substr(bytes.size() - length), count, blob_length);
}

StatusOr<bool> LayerIndexReader::Next(LayerEntry& entry) {
  if (left_ == 0) {
    if (reader_.remaining() > 0) return absl::DataLossError("a layer index has bytes after its entries");
    return false;
  }
  --left_;
  TarEntry& file = entry.file;
  file.type = static_cast<EntryType>(reader_.Get<std::uint8_t>());
  file.mode = reader_.Get<std::uint32_t>();
  file.user = reader_.Get<std::uint32_t>();
  file.group = reader_.Get<std::uint32_t>();
  file.mtime = static_cast<std::int64_t>(reader_.Get<std::uint64_t>());
  file.mtime_nanoseconds = reader_.Get<std::uint32_t>();
  file.device_major = reader_.Get<std::uint32_t>();
  file.device_minor = reader_.Get<std::uint32_t>();
  file.size = reader_.Get<std::uint64_t>();
  entry.data_offset = reader_.Get<std::uint64_t>();
  file.path = reader_.GetString();
  file.link_target = reader_.GetString();
  file.attributes.clear();
  for (auto left = reader_.Get<std::uint32_t>(); left > 0 && reader_.ok(); --left) {
    ExtendedAttribute attribute;
    attribute.name = reader_.GetString();
    attribute.value = reader_.GetString();
    file.attributes.push_back(std::move(attribute));
  }
  if (!reader_.ok()) return absl::DataLossError("a layer index is cut short");
  if (!IsSound(entry)) return absl::DataLossError(Concat("a layer index has a malformed entry ", Excerpt(file.path)));
  return true;
}

}  // namespace husk::images
