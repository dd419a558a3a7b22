#include "images/testing/merged_layers.h"

#include <fcntl.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <utility>

#include "agent/common/unique_fd.h"
#include "images/erofs_writer.h"
#include "images/layer_unpacker.h"
#include "images/text.h"

namespace husk::images::testing {

MergedLayers::MergedLayers(const Layers& layers) {
  for (const auto& entries : layers) {
    if (status.ok()) status = Add(MakeTar(entries));
  }
}

MergedLayers::MergedLayers(const std::vector<std::string>& archives) {
  for (const std::string& archive : archives) {
    if (status.ok()) status = Add(archive);
  }
}

std::vector<std::string> MergedLayers::List() const {
  std::vector<std::string> lines;
  std::vector<std::pair<std::string, InodeId>> left = {{"", kRootInode}};
  while (!left.empty()) {
    const auto [path, id] = left.back();
    left.pop_back();
    for (const auto& [name, child] : tree.inode(id).children) {
      const TreeInode& inode = tree.inode(child.inode);
      const std::string child_path = Concat(path, "/", name);
      if (inode.IsDirectory()) {
        lines.push_back(child_path + "/");
        left.emplace_back(child_path, child.inode);
      } else if (inode.IsSymlink()) {
        lines.push_back(Concat(child_path, "->", inode.symlink_target));
      } else {
        lines.push_back(S_ISREG(inode.mode) ? Concat(child_path, "=", Data(inode)) : child_path + "?");
      }
    }
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

Status MergedLayers::WriteDisk(const std::string& path) const {
  HUSK_ASSIGN_OR_RETURN(const std::string metadata, WriteErofsMetadata(tree, lengths, "test"));
  std::ofstream(directory.path() + "/metadata", std::ios::binary) << metadata;
  std::vector<DiskPart> parts = {{directory.path() + "/metadata", metadata.size()}};
  for (std::size_t i = 0; i < lengths.size(); ++i) parts.push_back({Blob(i), lengths[i]});
  return Concatenate(parts, path);
}

StatusOr<std::map<std::string, ErofsFile>> MergedLayers::ReadBack() const {
  HUSK_RETURN_IF_ERROR(status);
  HUSK_ASSIGN_OR_RETURN(const std::string metadata, WriteErofsMetadata(tree, lengths, "test"));
  return ReadErofs(metadata, std::accumulate(lengths.begin(), lengths.end(), std::uint64_t{metadata.size()}));
}

std::string MergedLayers::Blob(std::size_t part) const {
  return Concat(directory.path(), "/blob", part);
}

Status MergedLayers::Add(const std::string& archive) {
  const UniqueFd file(open(Blob(lengths.size()).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  LayerBuilder builder(file.get());
  TarReader reader(builder);
  HUSK_RETURN_IF_ERROR(reader.Write(archive));
  HUSK_RETURN_IF_ERROR(reader.Finish());
  HUSK_ASSIGN_OR_RETURN(const std::string index, builder.Finish());
  HUSK_ASSIGN_OR_RETURN(const LayerIndexReader parsed, LayerIndexReader::Parse(index));
  lengths.push_back(parsed.blob_length());
  return tree.ApplyLayer(parsed, static_cast<std::uint32_t>(lengths.size() - 1));
}

std::string MergedLayers::Data(const TreeInode& inode) const {
  std::ifstream file(Blob(inode.part), std::ios::binary);
  file.seekg(static_cast<std::streamoff>(inode.data_offset));
  std::string data(inode.size, '\0');
  file.read(data.data(), static_cast<std::streamsize>(data.size()));
  return data;
}

}  // namespace husk::images::testing
