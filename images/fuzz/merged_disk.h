// An image's disk held against the tree that it was written from.
#ifndef HUSK_IMAGES_FUZZ_MERGED_DISK_H_
#define HUSK_IMAGES_FUZZ_MERGED_DISK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "images/image_tree.h"

namespace husk::images::fuzz {

// Writes the tree's metadata twice, which must make the same bytes, reads them back by the strict reader, and compares
// every file: type, mode, owner, size, times, device, attributes, link count, target, and where its data lie.
// Ends the process at a difference. Returns the metadata.
std::string RequireSameOnDisk(const ImageTree& tree, const std::vector<std::uint64_t>& blob_lengths);

}  // namespace husk::images::fuzz

#endif  // HUSK_IMAGES_FUZZ_MERGED_DISK_H_
