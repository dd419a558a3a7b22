#include "images/image_tree.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kWhiteoutMetaPrefix = ".wh..wh.";
constexpr std::string_view kOpaqueMarker = ".wh..wh..opq";
// As many as Linux follows in one path.
constexpr int kMaximumSymlinks = 40;

Status Refuse(std::string_view path, std::string_view fault) {
  return absl::InvalidArgumentError(Concat("the layer's entry \"", Excerpt(path), "\": ", fault));
}

struct SplitPath {
  std::string_view parent;
  std::string_view name;
};

SplitPath Split(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

std::uint32_t FileTypeBits(EntryType type) {
  switch (type) {
    case EntryType::kSymlink:
      return S_IFLNK;
    case EntryType::kCharacterDevice:
      return S_IFCHR;
    case EntryType::kBlockDevice:
      return S_IFBLK;
    case EntryType::kDirectory:
      return S_IFDIR;
    case EntryType::kFifo:
      return S_IFIFO;
    case EntryType::kRegular:
    case EntryType::kHardLink:
      return S_IFREG;
  }
  return S_IFREG;
}

}  // namespace

ImageTree::ImageTree(const MergeLimits& limits) : limits_(limits) {
  inodes_.emplace_back();
  inodes_[kRootInode].links = 1;
}

Status ImageTree::ApplyLayer(LayerIndexReader index, std::uint32_t part) {
  ++layer_;
  LayerEntry entry;
  while (true) {
    HUSK_ASSIGN_OR_RETURN(const bool more, index.Next(entry));
    if (!more) return absl::OkStatus();
    HUSK_RETURN_IF_ERROR(ApplyEntry(entry, part));
    HUSK_RETURN_IF_ERROR_DOING(CheckLimits(), Concat("the layer's entry \"", Excerpt(entry.file.path), "\""));
  }
}

Status ImageTree::CheckLimits() const {
  if (names_ > limits_.names) {
    return absl::ResourceExhaustedError(Concat("the image has more than ", limits_.names, " files"));
  }
  if (text_bytes_ > limits_.text_bytes) {
    return absl::ResourceExhaustedError(
        Concat("the image's names and attributes exceed ", limits_.text_bytes, " bytes"));
  }
  if (steps_ > limits_.steps || path_bytes_ > limits_.path_bytes) {
    return absl::ResourceExhaustedError("the image's paths, symlinks and whiteouts take too long to follow");
  }
  return absl::OkStatus();
}

Status ImageTree::ApplyEntry(const LayerEntry& entry, std::uint32_t part) {
  const TarEntry& file = entry.file;
  if (file.path.empty()) {
    SetAttributes(file, inodes_[kRootInode]);
    return absl::OkStatus();
  }
  const SplitPath split = Split(file.path);
  // Directories in which AUFS kept its own state.
  if (file.path.starts_with(kWhiteoutMetaPrefix) && split.name != kOpaqueMarker) return absl::OkStatus();
  if (split.name.starts_with(kWhiteoutPrefix)) return ApplyWhiteout(file.path, split.parent, split.name);

  HUSK_ASSIGN_OR_RETURN_DOING(const InodeId parent, ResolveDirectory(split.parent, Missing::kCreate),
                              Concat("the layer's entry \"", Excerpt(file.path), "\""));
  const std::string name(split.name);
  InodeId linked = 0;
  if (file.type == EntryType::kHardLink) {
    HUSK_ASSIGN_OR_RETURN(linked, ResolveHardLink(file));
  }
  if (const auto old = inodes_[parent].children.find(name); old != inodes_[parent].children.end()) {
    if (file.type == EntryType::kHardLink && old->second.inode == linked) {
      old->second.layer = layer_;
      return absl::OkStatus();
    }
    TreeInode& inode = inodes_[old->second.inode];
    if (file.type == EntryType::kDirectory && inode.IsDirectory()) {
      old->second.layer = layer_;
      SetAttributes(file, inode);
      return absl::OkStatus();
    }
    Remove(parent, name);
  }
  if (file.type == EntryType::kHardLink) {
    if (inodes_[linked].links == 0) return Refuse(file.path, "it would be a hard link to what it replaces");
    Link(parent, name, linked);
    return absl::OkStatus();
  }
  InodeId id = 0;
  if (file.type == EntryType::kDirectory) {
    HUSK_ASSIGN_OR_RETURN_DOING(id, MakeDirectory(parent, name),
                                Concat("the layer's entry \"", Excerpt(file.path), "\""));
  } else {
    id = NewInode();
    Link(parent, name, id);
  }
  TreeInode& inode = inodes_[id];
  SetAttributes(file, inode);
  inode.device_major = file.device_major;
  inode.device_minor = file.device_minor;
  inode.size = file.size;
  inode.part = part;
  inode.data_offset = entry.data_offset;
  if (file.type == EntryType::kSymlink) {
    inode.symlink_target = file.link_target;
    text_bytes_ += file.link_target.size();
  }
  return absl::OkStatus();
}

Status ImageTree::ApplyWhiteout(std::string_view path, std::string_view parent, std::string_view name) {
  const bool opaque = name == kOpaqueMarker;
  const std::string hidden(name.substr(kWhiteoutPrefix.size()));
  if (!opaque && (hidden.empty() || hidden == "." || hidden == "..")) {
    return Refuse(path, "a whiteout must name a file");
  }
  const StatusOr<InodeId> directory = ResolveDirectory(parent, opaque ? Missing::kCreate : Missing::kStop);
  // Nothing to hide where there is nothing.
  if (absl::IsNotFound(directory.status())) return absl::OkStatus();
  if (!directory.ok()) return Annotate(directory.status(), Concat("whiteout \"", Excerpt(path), "\""));
  if (opaque) {
    RemoveLower(*directory);
    return absl::OkStatus();
  }
  const auto& children = inodes_[*directory].children;
  const auto child = children.find(hidden);
  if (child == children.end()) return absl::OkStatus();
  // A whiteout hides what is below its layer, never what the layer itself brings.
  const TreeInode& inode = inodes_[child->second.inode];
  const bool lower = child->second.layer < layer_;
  if (inode.IsDirectory()) RemoveLower(child->second.inode);
  if (lower && (!inode.IsDirectory() || inode.children.empty())) Remove(*directory, hidden);
  return absl::OkStatus();
}

StatusOr<InodeId> ImageTree::ResolveHardLink(const TarEntry& file) {
  const SplitPath split = Split(file.link_target);
  const auto refuse = [&file](std::string_view fault) {
    return Refuse(file.path, Concat("its hard link target \"", Excerpt(file.link_target), "\" ", fault));
  };
  const StatusOr<InodeId> parent = ResolveDirectory(split.parent, Missing::kStop);
  if (!parent.ok()) return refuse("does not exist");
  const auto& children = inodes_[*parent].children;
  const auto found = children.find(std::string(split.name));
  if (split.name.empty() || found == children.end()) return refuse("does not exist");
  // A link to a symlink is a second name of the symlink, as link(2) makes it.
  if (inodes_[found->second.inode].IsDirectory()) return refuse("is a directory");
  return found->second.inode;
}

StatusOr<InodeId> ImageTree::ResolveDirectory(std::string_view path, Missing missing) {
  // Names still to be walked, the next one last.
  std::vector<std::string> names;
  const auto push = [&](std::string_view more) {
    path_bytes_ += more.size();
    const std::vector<std::string_view> parts = SplitNonEmpty(more, '/');
    names.insert(names.end(), parts.rbegin(), parts.rend());
  };
  push(path);
  InodeId current = kRootInode;
  int symlinks = 0;
  while (!names.empty()) {
    const std::string name = std::move(names.back());
    names.pop_back();
    ++steps_;
    if (name == ".") continue;
    if (name == "..") {
      current = inodes_[current].parent;
      continue;
    }
    const auto child = inodes_[current].children.find(name);
    if (child == inodes_[current].children.end()) {
      if (missing == Missing::kStop) return absl::NotFoundError("no such directory");
      if (name.size() > kMaximumName) return absl::InvalidArgumentError("a name is longer than 255 bytes");
      HUSK_ASSIGN_OR_RETURN(current, MakeDirectory(current, name));
      continue;
    }
    const TreeInode& inode = inodes_[child->second.inode];
    if (inode.IsDirectory()) {
      current = child->second.inode;
    } else if (inode.IsSymlink()) {
      if (++symlinks > kMaximumSymlinks) return absl::InvalidArgumentError("too many symlinks in its path");
      if (inode.symlink_target.starts_with('/')) current = kRootInode;
      push(inode.symlink_target);
    } else if (missing == Missing::kStop) {
      return absl::NotFoundError("no such directory");
    } else {
      return absl::InvalidArgumentError(Concat("\"", Printable(name), "\" in its path is not a directory"));
    }
  }
  return current;
}

InodeId ImageTree::NewInode() {
  inodes_.emplace_back();
  return static_cast<InodeId>(inodes_.size() - 1);
}

StatusOr<InodeId> ImageTree::MakeDirectory(InodeId parent, const std::string& name) {
  const std::uint32_t depth = inodes_[parent].depth + 1;
  if (depth > limits_.depth) {
    return absl::ResourceExhaustedError(Concat("more than ", limits_.depth, " directories within each other"));
  }
  const InodeId id = NewInode();
  inodes_[id].parent = parent;
  inodes_[id].depth = depth;
  Link(parent, name, id);
  return id;
}

void ImageTree::SetAttributes(const TarEntry& file, TreeInode& inode) {
  inode.mode = FileTypeBits(file.type) | file.mode;
  inode.user = file.user;
  inode.group = file.group;
  inode.mtime = file.mtime;
  inode.mtime_nanoseconds = file.mtime_nanoseconds;
  inode.attributes = file.attributes;
  for (const ExtendedAttribute& attribute : file.attributes)
    text_bytes_ += attribute.name.size() + attribute.value.size();
}

void ImageTree::Link(InodeId parent, const std::string& name, InodeId inode) {
  inodes_[parent].children[name] = {inode, layer_};
  ++inodes_[inode].links;
  ++names_;
  text_bytes_ += name.size();
}

void ImageTree::Remove(InodeId parent, const std::string& name) {
  const auto child = inodes_[parent].children.find(name);
  std::vector<InodeId> unlinked = {child->second.inode};
  inodes_[parent].children.erase(child);
  while (!unlinked.empty()) {
    TreeInode& inode = inodes_[unlinked.back()];
    unlinked.pop_back();
    if (--inode.links > 0) continue;
    for (const auto& [unused, grandchild] : inode.children) unlinked.push_back(grandchild.inode);
    inode = TreeInode();
  }
}

void ImageTree::RemoveLower(InodeId directory) {
  // A directory of a lower layer stays as long as something of this layer is in it, so children come first.
  struct Visit {
    InodeId directory;
    InodeId parent;
    std::string name;
    bool children_done;
  };
  std::vector<Visit> visits;
  visits.push_back({directory, kRootInode, "", false});
  while (!visits.empty()) {
    if (!visits.back().children_done) {
      visits.back().children_done = true;
      const InodeId current = visits.back().directory;
      std::vector<std::string> lower_files;
      ++steps_;
      for (const auto& [name, child] : inodes_[current].children) {
        ++steps_;
        if (inodes_[child.inode].IsDirectory()) {
          visits.push_back({child.inode, current, name, false});
        } else if (child.layer < layer_) {
          lower_files.push_back(name);
        }
      }
      for (const std::string& name : lower_files) Remove(current, name);
      continue;
    }
    const Visit visit = std::move(visits.back());
    visits.pop_back();
    if (visit.directory == directory) continue;
    const TreeInode::Child& child = inodes_[visit.parent].children.at(visit.name);
    if (child.layer < layer_ && inodes_[visit.directory].children.empty()) Remove(visit.parent, visit.name);
  }
}

}  // namespace husk::images
