#include "sandbox/volumes/host_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

constexpr std::size_t kMostEntries = 10'000;
constexpr int kMostLevels = 32;
constexpr std::int64_t kMostBytes = std::int64_t{512} << 20;
// The kubelet's new ..data, before it takes the old one's place.
constexpr std::string_view kTemporaryLink = "..data_tmp";

HostEntry EntryOf(const struct stat& info) {
  constexpr std::int64_t kNanoseconds = 1'000'000'000;
  HostEntry entry{.mode = info.st_mode & 07777U, .uid = info.st_uid, .gid = info.st_gid};
  if (S_ISREG(info.st_mode)) {
    entry.size = info.st_size;
    entry.modified = info.st_mtim.tv_sec * kNanoseconds + info.st_mtim.tv_nsec;
    entry.inode = info.st_ino;
  }
  return entry;
}

Status Vanished(const std::string& path) {
  return absl::AbortedError(absl::StrCat(path, " went while the volume was read"));
}

class Reader {
 public:
  explicit Reader(std::string root) : root_(std::move(root)) {}

  Status ReadDirectory(UniqueFd fd, const std::string& prefix, int level) {
    if (level > kMostLevels) return TooMuch("levels");
    const std::unique_ptr<DIR, int (*)(DIR*)> stream(fdopendir(fd.get()), &closedir);
    if (stream == nullptr) return ErrnoStatus(errno, absl::StrCat("read ", root_, "/", prefix));
    const int directory = fd.Release();  // the stream's now
    for (;;) {
      errno = 0;
      const dirent* const next = readdir(stream.get());
      if (next == nullptr) break;
      const std::string name = next->d_name;
      if (name == "." || name == ".." || (prefix.empty() && name == kTemporaryLink)) continue;
      HUSK_RETURN_IF_ERROR(ReadEntry(directory, name, absl::StrCat(prefix, name), level));
    }
    return errno == 0 ? absl::OkStatus() : ErrnoStatus(errno, absl::StrCat("read ", root_, "/", prefix));
  }

  HostTree& tree() { return tree_; }

 private:
  Status ReadEntry(int directory, const std::string& name, const std::string& path, int level) {
    struct stat info{};
    if (fstatat(directory, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return errno == ENOENT ? Vanished(path) : ErrnoStatus(errno, absl::StrCat("stat ", root_, "/", path));
    }
    if (tree_.size() >= kMostEntries) return TooMuch("entries");
    HostEntry entry = EntryOf(info);
    if (S_ISDIR(info.st_mode)) {
      entry.type = HostEntry::Type::kDirectory;
      UniqueFd below(openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!below.valid()) return errno == ENOENT ? Vanished(path) : ErrnoStatus(errno, absl::StrCat("open ", path));
      tree_[path] = std::move(entry);
      return ReadDirectory(std::move(below), absl::StrCat(path, "/"), level + 1);
    }
    if (S_ISLNK(info.st_mode)) {
      std::array<char, PATH_MAX> target{};
      const ssize_t length = readlinkat(directory, name.c_str(), target.data(), target.size());
      if (length < 0) return Vanished(path);
      entry.type = HostEntry::Type::kSymlink;
      entry.target.assign(target.data(), static_cast<std::size_t>(length));
    } else if (!S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat(root_, "/", path, " is no file, directory or symlink"));
    }
    bytes_ += entry.size;
    if (bytes_ > kMostBytes) return TooMuch("bytes");
    tree_[path] = std::move(entry);
    return absl::OkStatus();
  }

  [[nodiscard]] Status TooMuch(const char* what) const {
    return absl::ResourceExhaustedError(
        absl::StrCat(root_, " has too many ", what, " for a volume that is copied into the guest: more than ",
                     kMostEntries, " entries, ", kMostLevels, " levels or ", kMostBytes >> 20, " MiB"));
  }

  const std::string root_;
  HostTree tree_;
  std::int64_t bytes_ = 0;
};

}  // namespace

StatusOr<HostTree> ReadHostTree(const std::string& directory) {
  UniqueFd root(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return ErrnoStatus(errno, absl::StrCat("open ", directory));
  Reader reader(directory);
  HUSK_RETURN_IF_ERROR(reader.ReadDirectory(std::move(root), "", 0));
  return std::move(reader.tree());
}

std::int64_t BytesOf(const HostTree& tree) {
  std::int64_t bytes = 0;
  for (const auto& [path, entry] : tree) bytes += entry.size;
  return bytes;
}

StatusOr<HostEntry> ReadHostFile(const std::string& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, absl::StrCat("stat ", path));
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is no file"));
  return EntryOf(info);
}

StatusOr<UniqueFd> OpenInTree(const std::string& directory, const std::string& path) {
  const UniqueFd root(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return ErrnoStatus(errno, absl::StrCat("open ", directory));
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  UniqueFd file(static_cast<int>(syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof how)));
  if (file.valid()) return file;
  return errno == ENOENT ? Vanished(path) : ErrnoStatus(errno, absl::StrCat("open ", directory, "/", path));
}

}  // namespace husk::sandbox
