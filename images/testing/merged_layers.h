// Layers taken apart and merged without a registry and a store, in a directory of their own.
#ifndef HUSK_IMAGES_TESTING_MERGED_LAYERS_H_
#define HUSK_IMAGES_TESTING_MERGED_LAYERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "images/image_tree.h"
#include "images/testing/archive.h"
#include "images/testing/disk_check.h"
#include "images/testing/erofs_reader.h"

namespace husk::images::testing {

using Layers = std::vector<std::vector<ArchiveEntry>>;

class MergedLayers {
 public:
  explicit MergedLayers(const Layers& layers);
  // Whole archives.
  explicit MergedLayers(const std::vector<std::string>& archives);

  // "/a=b" for a file with the data "b", "/d/" for a directory, "/l->t" for a symlink, "/x?" for another file.
  [[nodiscard]] std::vector<std::string> List() const;
  // Writes the whole disk.
  [[nodiscard]] Status WriteDisk(const std::string& path) const;
  // What the strict reader finds in the metadata, by path, the root's being "".
  [[nodiscard]] StatusOr<std::map<std::string, ErofsFile>> ReadBack() const;

  TemporaryDirectory directory;
  ImageTree tree;
  std::vector<std::uint64_t> lengths;
  Status status;

 private:
  [[nodiscard]] std::string Blob(std::size_t part) const;
  Status Add(const std::string& archive);
  [[nodiscard]] std::string Data(const TreeInode& inode) const;
};

}  // namespace husk::images::testing

#endif  // HUSK_IMAGES_TESTING_MERGED_LAYERS_H_
