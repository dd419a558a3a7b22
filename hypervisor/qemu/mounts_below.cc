#include "hypervisor/qemu/mounts_below.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"
#include "agent/common/unique_fd.h"

namespace husk::hypervisor {
namespace {

constexpr std::size_t kLongestName = 300;  // in an error

using Mounts = std::map<std::string, Mount>;

bool IsSame(const Mount& one, const Mount& other) {
  return one.device == other.device && one.root == other.root;
}

// Guests may make symlinks in what is shared: none is followed, on the host least of all.
UniqueFd OpenWithoutLinks(int directory, const std::string& path, std::uint64_t resolve) {
  const open_how how{.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW, .mode = 0, .resolve = resolve | RESOLVE_NO_SYMLINKS};
  return UniqueFd(static_cast<int>(syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how)));
}

// A copy of the host's mount that nothing propagates into. None: it is not to be seen on the host either, because
// another one hides it, or it is gone again; or it is one that its owner wants to have no copies of.
StatusOr<std::optional<UniqueFd>> Clone(const Mount& mount, bool read_only) {
  const UniqueFd place = OpenWithoutLinks(AT_FDCWD, mount.mount_point, 0);
  if (!place.valid()) return std::nullopt;
  struct statx seen{};
  if (statx(place.get(), "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_MNT_ID, &seen) != 0) {
    return ErrnoStatus(errno, "statx");
  }
  if (seen.stx_mnt_id != mount.id) return std::nullopt;
  UniqueFd copy(open_tree(place.get(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!copy.valid() && errno == EINVAL) return std::nullopt;
  if (!copy.valid()) return ErrnoStatus(errno, "open_tree");
  mount_attr change{};
  change.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  if (read_only) change.attr_set |= MOUNT_ATTR_RDONLY;
  change.propagation = MS_PRIVATE;
  if (mount_setattr(copy.get(), "", AT_EMPTY_PATH, &change, sizeof change) != 0) {
    return ErrnoStatus(errno, "mount_setattr");
  }
  return copy;
}

// A thread that has entered a mount namespace cannot be used for anything else.
Status RunInMountNamespace(const UniqueFd& name_space, const std::function<Status()>& work) {
  Status status;
  try {
    std::thread thread([&] {
      if (unshare(CLONE_FS) != 0 || setns(name_space.get(), CLONE_NEWNS) != 0) {
        status = ErrnoStatus(errno, "enter the file server's mount namespace");
      } else {
        status = work();
      }
    });
    thread.join();
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("start a thread: ", error.what()));
  }
  return status;
}

// One pass over a share's mounts.
class Follower {
 public:
  Follower(pid_t server, const FollowedShare& share, std::vector<std::string>& gone)
      : share_(share), gone_(gone), process_(absl::StrCat("/proc/", server)) {}

  Status Run() {
    std::error_code error;
    const std::string directory = std::filesystem::canonical(share_.path, error).string();
    if (error || stat(directory.c_str(), &directory_) != 0) return absl::OkStatus();  // it is gone
    namespace_ = UniqueFd(open((process_ + "/ns/mnt").c_str(), O_RDONLY | O_CLOEXEC));
    if (!namespace_.valid()) return ErrnoStatus(errno, "open the file server's mount namespace");
    HUSK_ASSIGN_OR_RETURN(const auto table, ReadMountTable());
    const Mounts wanted = MountsBelow(table, directory);
    HUSK_ASSIGN_OR_RETURN(Mounts present, Present());
    HUSK_RETURN_IF_ERROR(RunInMountNamespace(namespace_, [&] { return TakeAway(present, wanted); }));
    // What lay below something that was taken away is gone with it.
    HUSK_ASSIGN_OR_RETURN(present, Present());
    return Add(present, wanted);
  }

 private:
  // In the server's namespace, whose root is the directory.
  [[nodiscard]] StatusOr<Mounts> Present() const {
    HUSK_ASSIGN_OR_RETURN(const auto table, ReadMountTable(process_ + "/mountinfo"));
    return MountsBelow(table, "/");
  }

  // True in the server's namespace unless the path of the host names another directory by now.
  [[nodiscard]] bool IsTheDirectory() const {
    struct stat root{};
    return stat("/", &root) == 0 && root.st_dev == directory_.st_dev && root.st_ino == directory_.st_ino;
  }

  Status TakeAway(const Mounts& present, const Mounts& wanted) {
    if (!IsTheDirectory()) return absl::OkStatus();
    for (const auto& [path, mount] : present) {
      const auto found = wanted.find(path);
      if (found != wanted.end() && IsSame(found->second, mount)) continue;
      const std::string place = absl::StrCat("/", path);
      // All that is stacked there. Detached: the guest may have files of it open.
      while (umount2(place.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
      }
      // One whose parent was taken away before is not there any more.
      if (errno != EINVAL && errno != ENOENT) return ErrnoStatus(errno, Doing("unmount", path));
      gone_.push_back(path);
    }
    return absl::OkStatus();
  }

  Status Add(const Mounts& present, const Mounts& wanted) {
    std::vector<std::pair<std::string, UniqueFd>> copies;
    Status result;
    for (const auto& [path, mount] : wanted) {
      const auto found = present.find(path);
      if (found != present.end() && IsSame(found->second, mount)) continue;
      auto copy = Clone(mount, share_.read_only);
      if (!copy.ok()) result.Update(Annotate(copy.status(), Doing("copy the mount of", path)));
      if (copy.ok() && *copy) copies.emplace_back(path, **std::move(copy));
    }
    if (copies.empty()) return result;
    result.Update(RunInMountNamespace(namespace_, [&] { return Attach(copies); }));
    return result;
  }

  // In the order of their paths: what lies above others comes first.
  [[nodiscard]] Status Attach(const std::vector<std::pair<std::string, UniqueFd>>& copies) const {
    if (!IsTheDirectory()) return absl::OkStatus();
    const UniqueFd root(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root.valid()) return ErrnoStatus(errno, "open the shared directory");
    Status result;
    for (const auto& [path, copy] : copies) {
      const UniqueFd place = OpenWithoutLinks(root.get(), path, RESOLVE_BENEATH);
      if (!place.valid() ||
          move_mount(copy.get(), "", place.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) {
        result.Update(ErrnoStatus(errno, Doing("mount", path)));
      }
    }
    return result;
  }

  [[nodiscard]] std::string Doing(const char* what, const std::string& path) const {
    return absl::StrCat(what, " ", Printable(absl::StrCat(share_.path, "/", path), kLongestName),
                        " for the file server");
  }

  const FollowedShare& share_;
  std::vector<std::string>& gone_;
  const std::string process_;
  struct stat directory_{};
  UniqueFd namespace_;
};

}  // namespace

std::map<std::string, Mount> MountsBelow(const std::vector<Mount>& table, const std::string& directory) {
  const std::string prefix = directory == "/" ? directory : absl::StrCat(directory, "/");
  Mounts below;
  for (const Mount& mount : table) {
    if (mount.mount_point.size() <= prefix.size() || !absl::StartsWith(mount.mount_point, prefix)) continue;
    below[mount.mount_point.substr(prefix.size())] = mount;
  }
  return below;
}

Status FollowMountsInNamespace(pid_t server, const FollowedShare& share, std::vector<std::string>& gone) {
  return Follower(server, share, gone).Run();
}

}  // namespace husk::hypervisor
