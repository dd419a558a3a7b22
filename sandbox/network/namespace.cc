#include "sandbox/network/namespace.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/mount_table.h"
#include "agent/common/unique_fd.h"
#include "sandbox/host/pod_id.h"

namespace husk::sandbox {
namespace {

constexpr char kOwnNamespace[] = "/proc/thread-self/ns/net";

Status RunOnThread(const std::function<Status()>& work) {
  Status status;
  try {
    std::thread thread([&] { status = work(); });
    thread.join();
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("start a thread: ", error.what()));
  }
  return status;
}

Status BringLoopbackUp() {
  const UniqueFd socket_fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket_fd.valid()) return ErrnoStatus(errno, "socket");
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", sizeof(request.ifr_name) - 1);
  request.ifr_flags = IFF_UP;
  if (ioctl(socket_fd.get(), SIOCSIFFLAGS, &request) != 0) return ErrnoStatus(errno, "bring the loopback up");
  return absl::OkStatus();
}

}  // namespace

Status RunInNamespace(const std::string& path, const std::function<Status()>& work) {
  const UniqueFd target(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!target.valid()) return ErrnoStatus(errno, absl::StrCat("open network namespace ", path));
  return RunOnThread([&]() -> Status {
    if (setns(target.get(), CLONE_NEWNET) != 0) {
      return ErrnoStatus(errno, absl::StrCat("enter network namespace ", path));
    }
    return work();
  });
}

Status RunInNewNamespace(const std::function<Status()>& work) {
  return RunOnThread([&]() -> Status {
    if (unshare(CLONE_NEWNET) != 0) return ErrnoStatus(errno, "make a network namespace");
    return work();
  });
}

std::string NamespaceDirectory::PathOf(const std::string& id) const {
  return absl::StrCat(directory_, "/", id);
}

// Makes a mount below the directory visible in every other mount namespace, and its removal too. Where the directory
// lies on a shared mount (every systemd host) that is so already; else it becomes a shared mount of its own.
Status NamespaceDirectory::ShareDirectory() {
  std::error_code error;
  std::filesystem::create_directories(directory_, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("make ", directory_));
  const auto real = std::filesystem::canonical(directory_, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("find ", directory_));
  HUSK_ASSIGN_OR_RETURN(const auto mounts, ReadMountTable());
  const Mount* mount_below = FindMount(mounts, real.string());
  if (mount_below != nullptr && mount_below->shared) return absl::OkStatus();
  const bool own_mount = mount_below != nullptr && mount_below->mount_point == real.string();
  if (!own_mount && mount(real.c_str(), real.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return ErrnoStatus(errno, absl::StrCat("bind ", directory_, " to itself"));
  }
  if (mount(nullptr, real.c_str(), nullptr, MS_SHARED, nullptr) != 0) {
    return ErrnoStatus(errno, absl::StrCat("share mount ", directory_));
  }
  return absl::OkStatus();
}

// Takes the mount away again when the last namespace has gone. An administrator's mount, whose root is "/", stays.
void NamespaceDirectory::UnshareDirectory() {
  std::error_code error;
  if (!std::filesystem::is_empty(directory_, error) || error) return;
  const auto real = std::filesystem::canonical(directory_, error);
  const auto mounts = ReadMountTable();
  if (error || !mounts.ok()) return;
  const Mount* mount_below = FindMount(*mounts, real.string());
  if (mount_below != nullptr && mount_below->mount_point == real.string() && mount_below->root != "/") {
    umount2(real.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  }
}

Status NamespaceDirectory::Create(const std::string& id) {
  const std::string path = PathOf(id);
  // The namespace is made before the lock is taken: that takes milliseconds, and longer while others go away.
  return RunInNewNamespace([&]() -> Status {
    HUSK_RETURN_IF_ERROR(BringLoopbackUp());
    const MutexLock lock(mutex_);
    HUSK_RETURN_IF_ERROR(ShareDirectory());
    const UniqueFd file(open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
    if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("create ", path));
    if (mount(kOwnNamespace, path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
      const int failure = errno;
      unlink(path.c_str());
      return ErrnoStatus(failure, absl::StrCat("bind a network namespace to ", path));
    }
    return absl::OkStatus();
  });
}

Status NamespaceDirectory::Remove(const std::string& id) {
  const std::string path = PathOf(id);
  const MutexLock lock(mutex_);
  // Several mounts may lie on one another; EINVAL: no more. The file alone is what a crash or a reboot leaves.
  while (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
  }
  if (errno != EINVAL && errno != ENOENT) return ErrnoStatus(errno, absl::StrCat("unmount ", path));
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus(errno, absl::StrCat("remove ", path));
  UnshareDirectory();
  return absl::OkStatus();
}

StatusOr<std::vector<std::string>> NamespaceDirectory::List() const {
  std::vector<std::string> ids;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory_, error), end; !error && entry != end;
       entry.increment(error)) {
    std::string id = entry->path().filename().string();
    if (CheckPodId(id).ok()) ids.push_back(std::move(id));
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return ErrnoStatus(error.value(), absl::StrCat("read ", directory_));
  }
  return ids;
}

}  // namespace husk::sandbox
