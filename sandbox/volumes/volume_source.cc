#include "sandbox/volumes/volume_source.h"

#include <linux/magic.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "agent/common/mount_table.h"
#include "agent/common/printable.h"

namespace husk::sandbox {
namespace {

// A file that a channel of 4 MiB frames can carry without holding up the pod's other calls for long.
constexpr std::int64_t kLongestFile = std::int64_t{16} << 20;
constexpr std::size_t kLongestName = 300;  // in an error

std::string IdOf(const std::string& path) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_Digest(path.data(), path.size(), digest.data(), &size, EVP_sha256(), nullptr);
  constexpr std::size_t kBytes = 16;
  return absl::StrCat("v", absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), kBytes}));
}

Status Unsupported(const std::string& path, const std::string& what) {
  return absl::UnimplementedError(absl::StrCat("host_path ", path, ": ", what));
}

Status Missing(const std::string& path) {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(path, error);
  return absl::InvalidArgumentError(error ? absl::StrCat("host_path ", path, ": does not exist")
                                          : absl::StrCat("host_path ", path, ": is a symlink to ",
                                                         absl::CHexEscape(target.string()), ", which does not exist"));
}

// What follows ".../pods/<uid>/" in a path; absent outside of the pod's directory.
std::optional<std::string> BelowPod(const std::string& path, const std::string& pod_uid) {
  if (pod_uid.empty()) return std::nullopt;
  const std::string directory = absl::StrCat("/pods/", pod_uid, "/");
  const std::size_t found = path.find(directory);
  if (found == std::string::npos) return std::nullopt;
  return path.substr(found + directory.size());
}

// "volumes/<plugin>/<name>" and what follows.
struct PluginPath {
  std::string plugin;
  std::string volume;  // up to the name, relative to the pod's directory
  std::string rest;    // without the slash before it
};

std::optional<PluginPath> ParsePluginPath(const std::string& below) {
  constexpr std::string_view kVolumes = "volumes/";
  if (!absl::StartsWith(below, "volumes/")) return std::nullopt;
  const std::size_t plugin_end = below.find('/', kVolumes.size());
  if (plugin_end == std::string::npos || plugin_end + 1 == below.size()) return std::nullopt;
  const std::size_t name_end = std::min(below.find('/', plugin_end + 1), below.size());
  return PluginPath{.plugin = below.substr(kVolumes.size(), plugin_end - kVolumes.size()),
                    .volume = below.substr(0, name_end),
                    .rest = name_end < below.size() ? below.substr(name_end + 1) : ""};
}

bool IsKept(const std::string& plugin) {
  return plugin == "kubernetes.io~configmap" || plugin == "kubernetes.io~secret" ||
         plugin == "kubernetes.io~projected" || plugin == "kubernetes.io~downward-api";
}

// The kubelet binds a sub-path of a volume to a place of its own, volume-subpaths/...: the path that it bound.
StatusOr<std::string> BoundPath(const std::string& path) {
  HUSK_ASSIGN_OR_RETURN(const std::vector<Mount> mounts, ReadMountTable());
  const Mount* const bound = FindMount(mounts, path);
  if (bound == nullptr || bound->mount_point != path) return path;
  for (const Mount& other : mounts) {
    if (other.device != bound->device || &other == bound || absl::StrContains(other.mount_point, "/volume-subpaths/")) {
      continue;
    }
    const std::string prefix = other.root == "/" ? "" : other.root;
    if (bound->root != prefix && !absl::StartsWith(bound->root, absl::StrCat(prefix, "/"))) continue;
    std::string found =
        absl::StrCat(other.mount_point == "/" ? "" : other.mount_point, bound->root.substr(prefix.size()));
    struct stat here{};
    struct stat there{};
    // Something else may be mounted over that place.
    if (stat(path.c_str(), &here) == 0 && stat(found.c_str(), &there) == 0 && here.st_ino == there.st_ino &&
        here.st_dev == there.st_dev) {
      return found;
    }
  }
  return path;
}

// Pages of the host cannot become a guest's, so what is in them cannot either. The kubelet makes directories, for
// sub-paths.
Status CheckEmpty(const std::string& path) {
  std::error_code error;
  for (auto entry = std::filesystem::recursive_directory_iterator(path, error);
       !error && entry != std::filesystem::recursive_directory_iterator(); entry.increment(error)) {
    if (entry->symlink_status(error).type() == std::filesystem::file_type::directory) continue;
    return Unsupported(path, absl::StrCat("is a hugetlbfs that holds ", Printable(entry->path().string(), kLongestName),
                                          ": huge pages of the host cannot be given to a VM"));
  }
  return error ? ErrnoStatus(error.value(), absl::StrCat("list ", path)) : absl::OkStatus();
}

Status FillHugePages(const struct statfs& file_system, VolumeSource& source) {
  if (source.kind != VolumeKind::kEmptyDirectory) {
    return Unsupported(source.path,
                       "is on a hugetlbfs of the host, whose pages a VM cannot share; an emptyDir of medium HugePages "
                       "is the pod's own");
  }
  HUSK_RETURN_IF_ERROR(CheckEmpty(source.path));
  source.page_size_bytes = static_cast<std::uint64_t>(file_system.f_bsize);
  // Without a limit the kernel says none, or all ones.
  const auto pages = static_cast<std::int64_t>(file_system.f_blocks);
  if (pages > 0) source.size_bytes = static_cast<std::uint64_t>(pages) * source.page_size_bytes;
  return absl::OkStatus();
}

// See docs/adr/0121-mounts-of-the-host-come-later.md.
Status FillFollowing(VolumeSource& source) {
  if (source.kind != VolumeKind::kShared) {
    return Unsupported(source.path,
                       absl::StrCat("propagation HOST_TO_CONTAINER: what the host mounts later comes only into a "
                                    "directory that the VM shares with the host, and this ",
                                    source.kind == VolumeKind::kEmptyDirectory ? "is the pod's own" : "is copied"));
  }
  source.follow_mounts = true;
  // The guest shall hold nothing that the host wants to unmount.
  source.immediate = true;
  return absl::OkStatus();
}

Status Fill(VolumeSource& source) {
  struct stat info{};
  struct statfs file_system{};
  if (stat(source.path.c_str(), &info) != 0 || statfs(source.path.c_str(), &file_system) != 0) {
    return ErrnoStatus(errno, absl::StrCat("stat ", source.path));
  }
  if (file_system.f_type == HUGETLBFS_MAGIC) HUSK_RETURN_IF_ERROR(FillHugePages(file_system, source));
  // No path has two slashes.
  source.id =
      IdOf(absl::StrCat(source.path, source.read_only ? "//read-only" : "", source.follow_mounts ? "//follow" : ""));
  source.mode = info.st_mode & 07777U;
  source.uid = info.st_uid;
  source.gid = info.st_gid;
  source.in_memory = file_system.f_type == TMPFS_MAGIC || file_system.f_type == RAMFS_MAGIC;
  if (source.kind == VolumeKind::kEmptyDirectory && source.in_memory) {
    source.size_bytes =
        static_cast<std::uint64_t>(file_system.f_blocks) * static_cast<std::uint64_t>(file_system.f_bsize);
  }
  return absl::OkStatus();
}

StatusOr<VolumeSource> FileSource(const ContainerMount& mount, const std::optional<std::string>& below,
                                  std::int64_t size) {
  const std::string& path = mount.host_path;
  if (!below && !mount.read_only) {
    return Unsupported(path, "a file of the host can be mounted read-only; writing to it is not supported yet");
  }
  if (size > kLongestFile) return Unsupported(path, "files of more than 16 MiB are not supported yet");
  VolumeSource source{.kind = VolumeKind::kFile, .path = path};
  // The kubelet's own file for the termination message.
  source.copy_back = below && !mount.read_only && absl::StartsWith(*below, "containers/");
  return source;
}

StatusOr<VolumeSource> DirectorySource(const ContainerMount& mount, const std::string& pod_uid) {
  const std::string& path = mount.host_path;
  const VolumeSource shared{.kind = VolumeKind::kShared, .path = path, .read_only = mount.read_only};
  auto below = BelowPod(path, pod_uid);
  if (!below) return shared;
  std::string origin = path;
  if (absl::StartsWith(*below, "volume-subpaths/")) {
    HUSK_ASSIGN_OR_RETURN(origin, BoundPath(path));
    below = BelowPod(origin, pod_uid);
  }
  const auto parsed = below ? ParsePluginPath(*below) : std::nullopt;
  if (!parsed) return shared;
  if (IsKept(parsed->plugin)) return VolumeSource{.kind = VolumeKind::kFiles, .path = path};
  if (parsed->plugin != "kubernetes.io~empty-dir") return shared;
  const std::size_t pod_directory = origin.size() - below->size();
  return VolumeSource{.kind = VolumeKind::kEmptyDirectory,
                      .path = absl::StrCat(origin.substr(0, pod_directory), parsed->volume),
                      .sub_path = parsed->rest};
}

}  // namespace

VolumeSource SharedInstead(const VolumeSource& files) {
  VolumeSource shared = files;
  shared.kind = VolumeKind::kShared;
  // No path has two slashes.
  shared.id = IdOf(absl::StrCat(files.path, "//shared-instead"));
  shared.read_only = true;
  shared.immediate = true;
  return shared;
}

StatusOr<VolumeSource> FindVolumeSource(const ContainerMount& mount, const std::string& pod_uid) {
  if (mount.host_path.empty() || mount.host_path.front() != '/' || mount.host_path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("host_path \"", mount.host_path, "\" is no absolute path"));
  }
  ContainerMount normal = mount;
  normal.host_path = std::filesystem::path(mount.host_path).lexically_normal().string();
  if (normal.host_path.size() > 1 && normal.host_path.back() == '/') normal.host_path.pop_back();
  const std::string& path = normal.host_path;
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return Missing(path);
    return ErrnoStatus(errno, absl::StrCat("host_path ", path));
  }
  StatusOr<VolumeSource> source;
  if (S_ISREG(info.st_mode)) {
    source = FileSource(normal, BelowPod(path, pod_uid), info.st_size);
  } else if (S_ISDIR(info.st_mode)) {
    source = DirectorySource(normal, pod_uid);
  } else if (S_ISBLK(info.st_mode)) {
    source = absl::InvalidArgumentError(absl::StrCat(
        "host_path ", path, ": is a block device: a container gets it as a device (volumeMode Block), not as a mount"));
  } else {
    source = Unsupported(path, "is neither a file nor a directory: other devices, sockets and FIFOs cannot be mounted");
  }
  HUSK_RETURN_IF_ERROR(source.status());
  if (mount.follow_mounts) HUSK_RETURN_IF_ERROR(FillFollowing(*source));
  HUSK_RETURN_IF_ERROR(Fill(*source));
  return source;
}

}  // namespace husk::sandbox
