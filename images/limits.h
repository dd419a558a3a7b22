// What an image may cost. Images are written by strangers: whatever one says, memory, disk and time stay within these
// bounds. They are far above what honest images need, and what exceeds one is refused with an error that says which.
#ifndef HUSK_IMAGES_LIMITS_H_
#define HUSK_IMAGES_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace husk::images {

// A layer's longest path, and longest symlink target, in bytes; its longest file name.
inline constexpr std::size_t kMaximumPath = 4096;
inline constexpr std::size_t kMaximumName = 255;

// Longer values do not fit into EROFS; the kernel's own limit is a byte more.
inline constexpr std::size_t kMaximumAttributeValue = 65535;

// What one layer may cost.
struct LayerLimits {
  std::uint64_t entries = std::uint64_t{1} << 21;
  // Of its index: names, targets, attributes. Held in memory until the layer is complete.
  std::uint64_t index_bytes = std::uint64_t{256} << 20;
  // It may inflate to so many bytes, or so many times its size on the wire, whichever is more. That counts the
  // archive's bytes, and the blocks that its files touch in the blob.
  std::uint64_t freely_inflated = std::uint64_t{16} << 30;
  std::uint64_t inflation = 100;
};

// A layer's files with their holes. EROFS has 32-bit block numbers: 16 TiB for an image; this leaves room for others.
inline constexpr std::uint64_t kMaximumBlob = std::uint64_t{4} << 40;

// What one image may cost, all its layers together, while they are merged in memory.
struct MergeLimits {
  std::uint64_t names = std::uint64_t{1} << 21;         // of files, those that were replaced or removed included
  std::uint64_t text_bytes = std::uint64_t{512} << 20;  // names, symlinks' targets and attributes, likewise
  std::uint32_t depth = 512;                            // of directories within each other
  // Directory entries looked at, and bytes of paths and symlinks read for that. Some seconds of one core.
  std::uint64_t steps = std::uint64_t{1} << 26;
  std::uint64_t path_bytes = std::uint64_t{1} << 30;
};
// Bytes of the metadata that are made of it.
inline constexpr std::uint64_t kMaximumErofsMetadata = std::uint64_t{2} << 30;

// Of a user's or a group's name in a config's User: Linux's LOGIN_NAME_MAX without its NUL, which useradd keeps to as
// well. Every list of images carries the user.
inline constexpr std::size_t kMaximumUserName = 255;

// Objects and lists within each other, in manifests and configs.
inline constexpr std::size_t kMaximumJsonDepth = 64;
// In one of them. A value of two bytes takes a hundred in memory.
inline constexpr std::size_t kMaximumJsonValues = std::size_t{1} << 18;

}  // namespace husk::images

#endif  // HUSK_IMAGES_LIMITS_H_
