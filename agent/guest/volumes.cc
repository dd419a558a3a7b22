#include "agent/guest/volumes.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/guest/files.h"
#include "agent/guest/ids.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

constexpr const char* kFiles = "/files";
constexpr const char* kStaging = "/staging";
constexpr const char* kStaged = "file";
constexpr std::uint32_t kMaximumRead = std::uint32_t{1} << 20;

// Its files are a file system by themselves, whose root the containers see.
bool IsMounted(v1::VolumeMedium medium) {
  return medium == v1::VIRTIOFS || medium == v1::HUGE_PAGES;
}

// Names between slashes: none empty, none "." or "..", no NUL.
StatusOr<std::vector<std::string>> Names(const std::string& path) {
  std::vector<std::string> names;
  for (const std::string_view name : Split(path, '/')) {
    if (name.empty() || name == "." || name == ".." || name.find('\0') != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("\"", path, "\" is no path in a volume"));
    }
    names.emplace_back(name);
  }
  return names;
}

StatusOr<UniqueFd> OpenDirectory(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  return fd;
}

StatusOr<UniqueFd> OpenBelow(int directory, const std::string& path, std::uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  UniqueFd fd(static_cast<int>(syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how)));
  if (!fd.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  return fd;
}

// A name in a directory that is held open.
struct Place {
  UniqueFd directory;
  std::string name;
};

StatusOr<Place> FindPlace(const std::string& root, const std::string& path) {
  HUSK_ASSIGN_OR_RETURN(const auto names, Names(path));
  HUSK_ASSIGN_OR_RETURN(UniqueFd directory, OpenDirectory(root));
  const std::size_t slash = path.rfind('/');
  if (slash != std::string::npos) {
    HUSK_ASSIGN_OR_RETURN(directory, OpenBelow(directory.get(), path.substr(0, slash), O_PATH | O_DIRECTORY));
  }
  return Place{.directory = std::move(directory), .name = names.back()};
}

// Removes a tree by its name in an open directory, without following links.
Status RemoveAt(const Place& place) {
  std::error_code error;
  std::filesystem::remove_all(absl::StrCat("/proc/self/fd/", place.directory.get(), "/", place.name), error);
  return error ? ErrnoStatus(error.value(), absl::StrCat("remove ", place.name)) : absl::OkStatus();
}

Status SetOwner(int fd, const v1::FileOwner& owner) {
  if (fchown(fd, owner.uid(), owner.gid()) != 0) return ErrnoStatus(errno, "set the owner");
  if (fchmod(fd, owner.mode() & 07777) != 0) return ErrnoStatus(errno, "set the mode");
  return absl::OkStatus();
}

Status WriteAt(int fd, std::string_view data, std::uint64_t offset) {
  while (!data.empty()) {
    const ssize_t count = pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "write");
    data.remove_prefix(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return absl::OkStatus();
}

// A piece into `fd`; the last one ends the file there.
Status WritePiece(int fd, const v1::FileOperation::WriteFile& piece) {
  HUSK_RETURN_IF_ERROR(WriteAt(fd, piece.data(), piece.offset()));
  if (!piece.last()) return absl::OkStatus();
  if (ftruncate(fd, static_cast<off_t>(piece.offset() + piece.data().size())) != 0) {
    return ErrnoStatus(errno, "set the size");
  }
  return SetOwner(fd, piece.owner());
}

Status MakeDirectory(const std::string& files, const v1::FileOperation::MakeDirectory& directory) {
  HUSK_ASSIGN_OR_RETURN(const Place place, FindPlace(files, directory.path()));
  if (mkdirat(place.directory.get(), place.name.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, absl::StrCat("mkdir ", directory.path()));
  }
  HUSK_ASSIGN_OR_RETURN(const UniqueFd made, OpenBelow(place.directory.get(), place.name, O_RDONLY | O_DIRECTORY));
  return SetOwner(made.get(), directory.owner());
}

Status MoveStaged(const std::string& staging, const Place& place) {
  HUSK_ASSIGN_OR_RETURN(const UniqueFd from, OpenDirectory(staging));
  if (renameat(from.get(), kStaged, place.directory.get(), place.name.c_str()) != 0) {
    return ErrnoStatus(errno, absl::StrCat("rename to ", place.name));
  }
  return absl::OkStatus();
}

Status WriteStaged(const std::string& base, const v1::FileOperation::WriteFile& piece) {
  const std::string staging = absl::StrCat(base, kStaging);
  HUSK_ASSIGN_OR_RETURN(const Place place, FindPlace(absl::StrCat(base, kFiles), piece.path()));
  HUSK_ASSIGN_OR_RETURN(const UniqueFd directory, OpenDirectory(staging));
  const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (piece.offset() == 0 ? O_TRUNC : 0);
  const UniqueFd file(openat(directory.get(), kStaged, flags, 0600));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("create ", piece.path()));
  HUSK_RETURN_IF_ERROR(WritePiece(file.get(), piece));
  return piece.last() ? MoveStaged(staging, place) : absl::OkStatus();
}

Status WriteSingle(const std::string& base, const v1::FileOperation::WriteFile& piece) {
  const UniqueFd file(open(absl::StrCat(base, kFiles).c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file.valid()) return ErrnoStatus(errno, "open the volume's file");
  return WritePiece(file.get(), piece);
}

Status MakeSymlink(const std::string& base, const v1::FileOperation::MakeSymlink& link) {
  const std::string staging = absl::StrCat(base, kStaging);
  HUSK_ASSIGN_OR_RETURN(const Place place, FindPlace(absl::StrCat(base, kFiles), link.path()));
  HUSK_ASSIGN_OR_RETURN(const UniqueFd directory, OpenDirectory(staging));
  unlinkat(directory.get(), kStaged, 0);
  if (symlinkat(link.target().c_str(), directory.get(), kStaged) != 0) return ErrnoStatus(errno, "make a symlink");
  if (fchownat(directory.get(), kStaged, link.uid(), link.gid(), AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, "set a symlink's owner");
  }
  return MoveStaged(staging, place);
}

Status KeepOnly(const std::string& files, const v1::FileOperation::KeepOnly& keep) {
  std::error_code error;
  std::vector<std::string> others;
  for (const auto& entry : std::filesystem::directory_iterator(files, error)) {
    const std::string name = entry.path().filename().string();
    if (std::find(keep.names().begin(), keep.names().end(), name) == keep.names().end()) others.push_back(name);
  }
  if (error) return ErrnoStatus(error.value(), "list the volume");
  for (const std::string& name : others) {
    HUSK_ASSIGN_OR_RETURN(const Place place, FindPlace(files, name));
    HUSK_RETURN_IF_ERROR(RemoveAt(place));
  }
  return absl::OkStatus();
}

Status SetVolumeOwner(const v1::CreateVolumeRequest& request, const std::string& files) {
  v1::FileOwner owner;
  owner.set_mode(request.mode());
  owner.set_uid(request.uid());
  owner.set_gid(request.gid());
  const UniqueFd made(open(files.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!made.valid()) return ErrnoStatus(errno, absl::StrCat("open ", files));
  return SetOwner(made.get(), owner);
}

Status MakeFiles(const v1::CreateVolumeRequest& request, const std::string& base) {
  HUSK_RETURN_IF_ERROR(MakeDirectories(absl::StrCat(base, kStaging), 0700));
  const std::string files = absl::StrCat(base, kFiles);
  if (request.single_file()) {
    HUSK_RETURN_IF_ERROR(CreateFile(files, "", 0600));
  } else if (mkdir(files.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, absl::StrCat("mkdir ", files));
  }
  return SetVolumeOwner(request, files);
}

Status MountMemory(const std::string& base, std::uint64_t size_bytes) {
  HUSK_RETURN_IF_ERROR(MakeDirectories(base, 0700));
  const std::string options = size_bytes == 0 ? "mode=0700" : absl::StrCat("mode=0700,size=", size_bytes);
  if (mount("volume", base.c_str(), "tmpfs", MS_NODEV, options.c_str()) != 0) {
    return ErrnoStatus(errno, "mount the volume's tmpfs");
  }
  return absl::OkStatus();
}

// The device comes some time after the host has plugged it in. Nothing here waits for the host's file server, which
// may be slow: the file system's first request is sent in the background.
Status MountShare(const std::string& tag, const std::string& base) {
  const std::string files = absl::StrCat(base, kFiles);
  HUSK_RETURN_IF_ERROR(MakeDirectories(files, 0700));
  if (mount(tag.c_str(), files.c_str(), "virtiofs", MS_NODEV, nullptr) == 0) return absl::OkStatus();
  // What the kernel says of a tag that no device has.
  if (errno == EINVAL) return absl::NotFoundError(absl::StrCat("there is no virtiofs ", tag));
  return ErrnoStatus(errno, absl::StrCat("mount virtiofs ", tag));
}

Status MountHugePages(const v1::CreateVolumeRequest& request, const std::string& base) {
  if (request.single_file()) return absl::InvalidArgumentError("single_file: huge pages are none");
  const std::string files = absl::StrCat(base, kFiles);
  HUSK_RETURN_IF_ERROR(MakeDirectories(files, 0700));
  std::string options = absl::StrCat("mode=0700,pagesize=", request.page_size_bytes());
  if (request.size_bytes() != 0) absl::StrAppend(&options, ",size=", request.size_bytes());
  if (mount("volume", files.c_str(), "hugetlbfs", MS_NODEV, options.c_str()) != 0) {
    if (errno != EINVAL) return ErrnoStatus(errno, "mount the volume's hugetlbfs");
    return absl::InvalidArgumentError(
        absl::StrCat("page_size_bytes: the VM's kernel has no huge pages of ", request.page_size_bytes(), " bytes"));
  }
  const Status owned = SetVolumeOwner(request, files);
  if (!owned.ok()) umount2(files.c_str(), UMOUNT_NOFOLLOW);
  return owned;
}

// Lets Linux read far ahead: a virtiofs asks for 128 KiB at a time by itself, and each request costs the way to the
// server and back. Its device's number comes from the mount table, since asking the file system would wait for the
// server. Without effect before the file system's first answer, which comes with the first request; a failure costs
// speed and nothing else.
void ReadAhead(const std::string& files) {
  const auto table = ReadFile("/proc/self/mountinfo");
  if (!table.ok()) return;
  for (const std::string_view line : Split(*table, '\n')) {
    const std::vector<std::string_view> words = SplitWords(line);
    constexpr std::size_t kDevice = 2;
    constexpr std::size_t kMountPoint = 4;
    if (words.size() <= kMountPoint || words[kMountPoint] != files) continue;
    const std::string device(words[kDevice]);
    WriteFile(absl::StrCat("/sys/class/bdi/", device, "/read_ahead_kb"), "1024").IgnoreError();
  }
}

}  // namespace

Volumes::Volumes(std::string memory, std::string scratch) : memory_(std::move(memory)), scratch_(std::move(scratch)) {}

StatusOr<Volumes::Volume*> Volumes::Find(const std::string& volume_id) {
  const auto found = volumes_.find(volume_id);
  if (found == volumes_.end()) return absl::NotFoundError(absl::StrCat("there is no volume ", volume_id));
  return &found->second;
}

Status Volumes::Create(const v1::CreateVolumeRequest& request) {
  HUSK_RETURN_IF_ERROR(CheckId(request.volume_id()));
  if (const auto found = volumes_.find(request.volume_id()); found != volumes_.end()) {
    const Volume& present = found->second;
    if (present.single_file == request.single_file() && present.medium == request.medium()) return absl::OkStatus();
    return absl::AlreadyExistsError(absl::StrCat("volume ", request.volume_id(), " is another one"));
  }
  if (volumes_.size() >= kMaximumVolumes) return absl::ResourceExhaustedError("too many volumes");
  Volume volume{.medium = request.medium(), .single_file = request.single_file()};
  const std::string& parent = request.medium() == v1::SCRATCH ? scratch_ + "/volumes" : memory_;
  volume.base = absl::StrCat(parent, "/", request.volume_id());
  HUSK_RETURN_IF_ERROR(Make(request, volume));
  if (IsMounted(volume.medium)) {
    volumes_[request.volume_id()] = std::move(volume);
    return absl::OkStatus();
  }
  const Status made = MakeFiles(request, volume.base);
  volumes_[request.volume_id()] = std::move(volume);
  if (!made.ok()) Remove(request.volume_id()).IgnoreError();
  return made;
}

Status Volumes::Make(const v1::CreateVolumeRequest& request, Volume& volume) {
  switch (volume.medium) {
    case v1::MEMORY:
      return MountMemory(volume.base, request.size_bytes());
    case v1::SCRATCH:
      if (!IsMountPoint(scratch_)) {
        return absl::FailedPreconditionError("the sandbox is not configured: no scratch disk");
      }
      return MakeDirectories(volume.base, 0700);
    case v1::VIRTIOFS:
      if (request.single_file()) return absl::InvalidArgumentError("single_file: a directory of the host is none");
      return MountShare(request.volume_id(), volume.base);
    case v1::HUGE_PAGES:
      return MountHugePages(request, volume.base);
    default:
      return absl::InvalidArgumentError("medium: unknown");
  }
}

Status Volumes::Apply(const Volume& volume, const v1::FileOperation& operation) {
  if (volume.medium == v1::VIRTIOFS) return absl::InvalidArgumentError("the volume is the host's");
  if (volume.medium == v1::HUGE_PAGES) return absl::InvalidArgumentError("the volume is of huge pages");
  if (operation.has_write_file()) {
    return volume.single_file ? WriteSingle(volume.base, operation.write_file())
                              : WriteStaged(volume.base, operation.write_file());
  }
  if (volume.single_file) return absl::InvalidArgumentError("the volume is a single file");
  const std::string files = absl::StrCat(volume.base, kFiles);
  if (operation.has_make_directory()) return MakeDirectory(files, operation.make_directory());
  if (operation.has_make_symlink()) return MakeSymlink(volume.base, operation.make_symlink());
  if (operation.has_keep_only()) return KeepOnly(files, operation.keep_only());
  if (!operation.has_remove()) return absl::InvalidArgumentError("an unknown operation");
  auto place = FindPlace(files, operation.remove().path());
  if (absl::IsNotFound(place.status())) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(place.status());
  return RemoveAt(*place);
}

Status Volumes::Change(const v1::ChangeVolumeRequest& request) {
  HUSK_ASSIGN_OR_RETURN(const Volume* const volume, Find(request.volume_id()));
  for (const v1::FileOperation& operation : request.operations()) {
    HUSK_RETURN_IF_ERROR_DOING(Apply(*volume, operation), absl::StrCat("volume ", request.volume_id()));
  }
  return absl::OkStatus();
}

StatusOr<v1::ReadVolumeResponse> Volumes::Read(const v1::ReadVolumeRequest& request) {
  HUSK_ASSIGN_OR_RETURN(const Volume* const volume, Find(request.volume_id()));
  if (!volume->single_file) return absl::InvalidArgumentError("the volume is not a single file");
  const UniqueFd file(open(absl::StrCat(volume->base, kFiles).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file.valid()) return ErrnoStatus(errno, "open the volume's file");
  std::string data(std::min(request.maximum_bytes(), kMaximumRead), '\0');
  const ssize_t count = pread(file.get(), data.data(), data.size(), static_cast<off_t>(request.offset()));
  if (count < 0) return ErrnoStatus(errno, "read the volume's file");
  data.resize(static_cast<std::size_t>(count));
  v1::ReadVolumeResponse response;
  response.set_data(std::move(data));
  return response;
}

Status Volumes::LookAgain(const v1::LookAgainRequest& request) {
  HUSK_ASSIGN_OR_RETURN(const Volume* const volume, Find(request.volume_id()));
  if (volume->medium != v1::VIRTIOFS) return absl::InvalidArgumentError("the volume is not the host's");
  for (const std::string& path : request.paths()) {
    // The kernel asks the server for the name, and drops what it had by that name if the server has something else.
    const auto place = FindPlace(absl::StrCat(volume->base, kFiles), path);
    if (absl::IsInvalidArgument(place.status())) return place.status();
    struct stat seen{};
    if (place.ok()) fstatat(place->directory.get(), place->name.c_str(), &seen, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
  }
  return absl::OkStatus();
}

Status Volumes::Remove(const std::string& volume_id) {
  const auto found = volumes_.find(volume_id);
  if (found == volumes_.end()) return absl::OkStatus();
  const Volume& volume = found->second;
  if (volume.medium == v1::SCRATCH) {
    HUSK_RETURN_IF_ERROR(RemoveTree(volume.base));
  } else {
    const std::string mounted = IsMounted(volume.medium) ? volume.base + kFiles : volume.base;
    if (umount2(mounted.c_str(), UMOUNT_NOFOLLOW) != 0 && errno != EINVAL) {
      return ErrnoStatus(errno, absl::StrCat("unmount volume ", volume_id));
    }
    // Never the tree below: it may still be the host's.
    rmdir(mounted.c_str());
    rmdir(volume.base.c_str());
  }
  volumes_.erase(found);
  return absl::OkStatus();
}

std::vector<Volumes::Tree> Volumes::Trees() const {
  std::vector<Tree> trees;
  for (const auto& [id, volume] : volumes_) {
    if (volume.single_file || (volume.medium != v1::MEMORY && volume.medium != v1::SCRATCH)) continue;
    trees.push_back(
        {.volume_id = id, .path = absl::StrCat(volume.base, kFiles), .in_memory = volume.medium == v1::MEMORY});
  }
  return trees;
}

StatusOr<std::string> Volumes::MountSource(const v1::VolumeMount& mount) {
  HUSK_ASSIGN_OR_RETURN(const Volume* const volume, Find(mount.volume_id()));
  std::string path = absl::StrCat(volume->base, kFiles);
  if (volume->medium == v1::VIRTIOFS) ReadAhead(path);
  if (mount.sub_path().empty()) return path;
  HUSK_ASSIGN_OR_RETURN(const auto names, Names(mount.sub_path()));
  HUSK_ASSIGN_OR_RETURN(UniqueFd directory, OpenDirectory(path));
  for (const std::string& name : names) {
    // As the kubelet makes them on the host.
    if (mkdirat(directory.get(), name.c_str(), 0750) != 0 && errno != EEXIST) {
      return ErrnoStatus(errno, absl::StrCat("mkdir ", name));
    }
    auto next = OpenBelow(directory.get(), name, O_PATH | O_DIRECTORY);
    if (!next.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("sub-path ", mount.sub_path(), ": ", next.status().message()));
    }
    directory = *std::move(next);
    absl::StrAppend(&path, "/", name);
  }
  return path;
}

}  // namespace husk::agent
