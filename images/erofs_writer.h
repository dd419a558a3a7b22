// Writes the metadata of an EROFS image: superblock, inodes, directories. File data stays where it is, in blobs that
// follow the metadata on the disk.
#ifndef HUSK_IMAGES_EROFS_WRITER_H_
#define HUSK_IMAGES_EROFS_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "images/image_tree.h"

namespace husk::images {

// The metadata's bytes, a multiple of kBlockSize. The disk is these bytes and then the blobs in order, whose lengths
// (multiples of kBlockSize) are given; TreeInode::part counts them. The same input makes the same bytes. `identity` is
// what the file system's UUID is made from. RESOURCE_EXHAUSTED if the tree does not fit into an EROFS image.
StatusOr<std::string> WriteErofsMetadata(const ImageTree& tree, const std::vector<std::uint64_t>& blob_lengths,
                                         std::string_view identity);

}  // namespace husk::images

#endif  // HUSK_IMAGES_EROFS_WRITER_H_
