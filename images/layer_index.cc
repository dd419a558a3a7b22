#include "images/layer_index.h"

#include "images/digest.h"
#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::string_view kMagic = "HUSKLAYR";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kDigestLength = 71;
constexpr std::size_t kMaximumIndex = std::size_t{512} << 20;

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
  if (entries_.size() <= kMaximumIndex) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      Concat("the layer's names and attributes exceed 512 MiB after ", count_, " entries"));
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
  if (left_ == 0) return false;
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
  return true;
}

}  // namespace husk::images
