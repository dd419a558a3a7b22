// The index of a layer blob: its entries in the archive's order, with where their data lies in the blob.
//
// On disk: magic "HUSKLAYR", version (u32), blob length (u64), number of entries (u64), length of the entries (u64),
// the entries, and the SHA-256 of everything before it as "sha256:<hex>". Numbers are little-endian. An index of
// another version is fetched again, never converted.
#ifndef HUSK_IMAGES_LAYER_INDEX_H_
#define HUSK_IMAGES_LAYER_INDEX_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "images/byte_codec.h"
#include "images/limits.h"
#include "images/tar_entry.h"

namespace husk::images {

// The unit in which blobs are laid out, and the block size of the EROFS image. Bytes.
inline constexpr std::uint64_t kBlockSize = 4096;

// Rounds up to whole blocks. `length` is far from overflow: files are at most 2^62 bytes.
constexpr std::uint64_t RoundUpToBlock(std::uint64_t length) {
  return (length + kBlockSize - 1) / kBlockSize * kBlockSize;
}

struct LayerEntry {
  // path and hard link targets are normalised: "a/b/c", "" for the root, no "." and no "..".
  TarEntry file;
  std::uint64_t data_offset = 0;  // in the blob, bytes, a multiple of kBlockSize; 0 if there is no data
};

// Not thread safe.
class LayerIndexWriter {
 public:
  explicit LayerIndexWriter(const LayerLimits& limits = {}) : limits_(limits) {}
  // RESOURCE_EXHAUSTED when the layer has more than its limits allow.
  Status Add(const LayerEntry& entry);
  // Called once, last.
  std::string Finish(std::uint64_t blob_length);

 private:
  const LayerLimits limits_;
  std::string entries_;
  std::uint64_t count_ = 0;
};

// Reads an index from memory. Not thread safe.
class LayerIndexReader {
 public:
  // DATA_LOSS if the bytes are not an index of this version, whole and unchanged.
  static StatusOr<LayerIndexReader> Parse(std::string_view bytes);

  [[nodiscard]] std::uint64_t blob_length() const { return blob_length_; }
  // False when there are no more. DATA_LOSS for an entry that no LayerBuilder writes.
  StatusOr<bool> Next(LayerEntry& entry);

 private:
  LayerIndexReader(std::string_view entries, std::uint64_t count, std::uint64_t blob_length)
      : reader_(entries), left_(count), blob_length_(blob_length) {}

  ByteReader reader_;
  std::uint64_t left_;
  std::uint64_t blob_length_;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_LAYER_INDEX_H_
