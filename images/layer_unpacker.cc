#include "images/layer_unpacker.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "images/text.h"

namespace husk::images {
namespace {

Status Refuse(std::string_view path, std::string_view fault) {
  return absl::InvalidArgumentError(Concat("the layer's entry \"", Excerpt(path), "\": ", fault));
}

// Attributes by which overlayfs marks its own upper layers would act on the guest's overlay, of which the image is the
// lower one.
bool IsKept(const ExtendedAttribute& attribute) {
  const std::string_view name = attribute.name;
  if (name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.")) return false;
  return name.starts_with("user.") || name.starts_with("trusted.") || name.starts_with("security.") ||
         name == "system.posix_acl_access" || name == "system.posix_acl_default";
}

Status CheckAttributes(const TarEntry& entry) {
  std::size_t total = 0;
  for (const ExtendedAttribute& attribute : entry.attributes) {
    const bool bad_name = attribute.name.size() > kMaximumName || attribute.name.find('\0') != std::string::npos;
    if (bad_name) return Refuse(entry.path, "the name of an extended attribute is malformed");
    if (attribute.value.size() > kMaximumAttributeValue) {
      return Refuse(entry.path,
                    Concat("the extended attribute ", Excerpt(attribute.name), " is longer than 65535 bytes"));
    }
    total += attribute.name.size() + attribute.value.size() + 8;
  }
  // What one inode can hold: 65535 units of four bytes.
  constexpr std::size_t kMaximumTotal = 65535 * 4;
  if (total > kMaximumTotal) return Refuse(entry.path, "its extended attributes exceed 256 KiB");
  return absl::OkStatus();
}

std::uint64_t MostInflated(std::uint64_t size, const LayerLimits& limits) {
  const bool fits = size < std::numeric_limits<std::uint64_t>::max() / limits.inflation;
  return fits ? std::max(limits.freely_inflated, size * limits.inflation) : std::numeric_limits<std::uint64_t>::max();
}

}  // namespace

StatusOr<std::string> NormalizeArchivePath(std::string_view path) {
  if (path.size() > kMaximumPath) return Refuse(path, "the path is longer than 4096 bytes");
  if (path.find('\0') != std::string_view::npos) return Refuse(path, "the path contains a NUL");
  std::string normal;
  for (const std::string_view name : SplitNonEmpty(path, '/')) {
    if (name == ".") continue;
    if (name == "..") return Refuse(path, "the path contains \"..\"");
    if (name.size() > kMaximumName) return Refuse(path, "a name is longer than 255 bytes");
    if (!normal.empty()) normal += '/';
    normal += name;
  }
  return normal;
}

Status LayerBuilder::OnEntry(TarEntry entry) {
  HUSK_ASSIGN_OR_RETURN(std::string path, NormalizeArchivePath(entry.path));
  if (entry.type == EntryType::kHardLink) {
    HUSK_ASSIGN_OR_RETURN_DOING(entry.link_target, NormalizeArchivePath(entry.link_target),
                                Concat("hard link ", Excerpt(path)));
  }
  if (entry.type == EntryType::kSymlink) {
    const std::string& target = entry.link_target;
    if (target.empty() || target.size() >= kMaximumPath || target.find('\0') != std::string::npos) {
      return Refuse(entry.path, "the symlink's target is empty, too long or contains a NUL");
    }
  }
  if (path.empty() && entry.type != EntryType::kDirectory) return Refuse(entry.path, "the root must be a directory");
  std::erase_if(entry.attributes, [](const ExtendedAttribute& attribute) { return !IsKept(attribute); });
  HUSK_RETURN_IF_ERROR(CheckAttributes(entry));
  LayerEntry indexed{.file = std::move(entry)};
  indexed.file.path = std::move(path);
  if (indexed.file.size > 0) {
    HUSK_ASSIGN_OR_RETURN_DOING(indexed.data_offset, blob_.BeginFile(indexed.file.size),
                                Concat("the layer's entry \"", Excerpt(indexed.file.path), "\""));
  }
  return index_.Add(indexed);
}

Status LayerBuilder::OnData(std::uint64_t offset, std::string_view data) {
  return blob_.Write(offset, data);
}

StatusOr<std::string> LayerBuilder::Finish() {
  HUSK_ASSIGN_OR_RETURN(const std::uint64_t length, blob_.Finish());
  return index_.Finish(length);
}

LayerUnpacker::LayerUnpacker(const Context& context, Expected expected, int blob_fd, const LayerLimits& limits)
    : context_(context),
      expected_(std::move(expected)),
      most_inflated_(MostInflated(expected_.size, limits)),
      builder_(blob_fd, limits),
      tar_(builder_),
      decompressor_([this](std::string_view bytes) { return WriteArchive(bytes); }) {}

Status LayerUnpacker::Write(std::string_view compressed) {
  if (compressed.size() > expected_.size - consumed_) {
    return absl::DataLossError(Concat("more than the expected ", expected_.size, " bytes were sent"));
  }
  consumed_ += compressed.size();
  compressed_hash_.Update(compressed);
  return decompressor_.Write(compressed);
}

Status LayerUnpacker::WriteArchive(std::string_view bytes) {
  // Here rather than in Write: a few bytes on the wire may inflate to gigabytes.
  HUSK_RETURN_IF_ERROR(context_.Check());
  archive_hash_.Update(bytes);
  inflated_ += bytes.size();
  HUSK_RETURN_IF_ERROR(tar_.Write(bytes));
  // A sparse file of single bytes touches a block for each: that is inflation too.
  const std::uint64_t size = std::max(inflated_, builder_.stored_bytes());
  if (size <= most_inflated_) return absl::OkStatus();
  return absl::ResourceExhaustedError(Concat("its ", expected_.size, " bytes inflate to more than ", most_inflated_));
}

StatusOr<std::string> LayerUnpacker::Finish() {
  if (consumed_ != expected_.size) {
    return absl::DataLossError(Concat("only ", consumed_, " of ", expected_.size, " bytes were sent"));
  }
  if (const std::string digest = compressed_hash_.Finish(); digest != expected_.digest) {
    return absl::DataLossError(Concat("the data's digest is ", digest, ", expected ", expected_.digest));
  }
  HUSK_RETURN_IF_ERROR(decompressor_.Finish());
  HUSK_RETURN_IF_ERROR(tar_.Finish());
  if (const std::string digest = archive_hash_.Finish(); digest != expected_.diff_id) {
    return absl::DataLossError(
        Concat("the archive's digest is ", digest, ", but the image's config says ", expected_.diff_id));
  }
  return builder_.Finish();
}

}  // namespace husk::images
