// One layer on its way from the wire to its blob: digest, decompression, diff-id and tar in one pass.
#ifndef HUSK_IMAGES_LAYER_UNPACKER_H_
#define HUSK_IMAGES_LAYER_UNPACKER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "images/blob_writer.h"
#include "images/decompressor.h"
#include "images/digest.h"
#include "images/layer_index.h"
#include "images/limits.h"
#include "images/tar_reader.h"

namespace husk::images {

// "a/b/c" of a path in an archive, "" for the root. INVALID_ARGUMENT for what could not be a file's name: "..", a NUL,
// parts that are too long.
StatusOr<std::string> NormalizeArchivePath(std::string_view path);

// Puts an archive's entries into a blob and its index. Refuses names that no file can have; drops attributes that mean
// something to overlayfs or have no place in EROFS.
class LayerBuilder : public TarReader::Visitor {
 public:
  explicit LayerBuilder(int blob_fd, const LayerLimits& limits = {}) : blob_(blob_fd), index_(limits) {}
  Status OnEntry(TarEntry entry) override;
  Status OnData(std::uint64_t offset, std::string_view data) override;
  Status OnEntryEnd() override { return absl::OkStatus(); }
  // The index; the blob is complete, but not synced. Called once.
  StatusOr<std::string> Finish();
  // What the files' data take up in the blob, holes left out.
  [[nodiscard]] std::uint64_t stored_bytes() const { return blob_.stored_bytes(); }

 private:
  BlobWriter blob_;
  LayerIndexWriter index_;
};

// Not thread safe. Memory is bounded.
class LayerUnpacker {
 public:
  struct Expected {
    std::string digest;      // of what comes over the wire
    std::uint64_t size = 0;  // of the same
    std::string diff_id;     // digest of the archive
  };

  LayerUnpacker(const Context& context, Expected expected, int blob_fd, const LayerLimits& limits = {});

  // DATA_LOSS for damaged or overlong data, INVALID_ARGUMENT for an archive that is malformed or that no tree could
  // come from, RESOURCE_EXHAUSTED beyond what limits.h allows, or the context's error.
  Status Write(std::string_view compressed);
  // All has been written. Checks size and both digests, then returns the index; the blob is not synced yet.
  StatusOr<std::string> Finish();
  [[nodiscard]] std::uint64_t consumed() const { return consumed_; }

 private:
  Status WriteArchive(std::string_view bytes);

  const Context context_;
  const Expected expected_;
  const std::uint64_t most_inflated_;  // bytes
  LayerBuilder builder_;
  TarReader tar_;
  Sha256 compressed_hash_;
  Sha256 archive_hash_;
  Decompressor decompressor_;
  std::uint64_t consumed_ = 0;
  std::uint64_t inflated_ = 0;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_LAYER_UNPACKER_H_
