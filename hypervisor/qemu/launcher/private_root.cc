// The root file system that the program sees: a read-only tmpfs with read-only binds of what it cannot do without.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "hypervisor/qemu/launcher/steps.h"

namespace husk::hypervisor::launcher {
namespace {

bool MoveMount(int mount, const char* target) {
  return move_mount(mount, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) == 0;
}

bool SetAttributes(int mount, std::uint64_t attributes) {
  mount_attr change{};
  change.attr_set = attributes;
  return mount_setattr(mount, "", AT_EMPTY_PATH, &change, sizeof change) == 0;
}

// The mount of a file system that has been configured.
int NewMount(int context, const char* what) {
  const int mount = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
  if (mount < 0) Fail(std::string("mount ") + what, errno);
  close(context);
  return mount;
}

int NewProc() {
  const int context = fsopen("proc", FSOPEN_CLOEXEC);
  if (context < 0) Fail("fsopen proc", errno);
  if (fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) Fail("configure /proc", errno);
  return NewMount(context, "/proc");
}

int NewTmpfs() {
  const int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
  if (context < 0) Fail("fsopen tmpfs", errno);
  // The binds' mount points are all that it ever holds.
  if (fsconfig(context, FSCONFIG_SET_STRING, "mode", "0755", 0) != 0 ||
      fsconfig(context, FSCONFIG_SET_STRING, "size", "1m", 0) != 0 ||
      fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    Fail("configure the private root", errno);
  }
  return NewMount(context, "the private root");
}

// A detached copy of the bind's source, taken while the host's tree can still be seen.
int CloneSource(const Bind& bind) {
  const int mount = open_tree(AT_FDCWD, bind.source.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (mount < 0) Fail("open " + bind.source, errno);
  struct stat status{};
  if (fstatat(mount, "", &status, AT_EMPTY_PATH) != 0) Fail("stat " + bind.source, errno);
  std::uint64_t attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
  if (!S_ISCHR(status.st_mode)) attributes |= MOUNT_ATTR_NODEV;
  if (!SetAttributes(mount, attributes)) Fail("make read-only " + bind.source, errno);
  return mount;
}

// Below the current directory, which is the new root.
void MakeMountPoint(const std::string& relative, bool directory) {
  for (auto slash = relative.find('/'); slash != std::string::npos; slash = relative.find('/', slash + 1)) {
    const std::string parent = relative.substr(0, slash);
    if (mkdir(parent.c_str(), 0755) != 0 && errno != EEXIST) Fail("make " + parent, errno);
  }
  if (directory) {
    if (mkdir(relative.c_str(), 0755) != 0 && errno != EEXIST) Fail("make " + relative, errno);
    return;
  }
  const int fd = open(relative.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0444);
  if (fd < 0) Fail("make " + relative, errno);
  close(fd);
}

void Attach(int mount, const Bind& bind) {
  struct stat status{};
  if (fstatat(mount, "", &status, AT_EMPTY_PATH) != 0) Fail("stat " + bind.source, errno);
  const std::string relative = bind.target.substr(1);
  MakeMountPoint(relative, S_ISDIR(status.st_mode));
  if (!MoveMount(mount, relative.c_str())) Fail("bind " + bind.target, errno);
  close(mount);
}

}  // namespace

int CloneShare(const Plan& plan) {
  if (plan.share < 0) return -1;
  const unsigned int below = plan.share_alone ? 0 : AT_RECURSIVE;
  const int mount = open_tree(plan.share, "", AT_EMPTY_PATH | below | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (mount < 0) Fail("clone the mount of the shared directory", errno);
  mount_attr change{};
  change.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  if (plan.share_read_only) change.attr_set |= MOUNT_ATTR_RDONLY;
  // The host could not unmount what is mounted later and comes here by itself, while a guest knows of it.
  change.propagation = MS_PRIVATE;
  if (mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &change, sizeof change) != 0) {
    Fail("set the attributes of the shared directory's mounts", errno);
  }
  return mount;
}

void EnterPrivateRoot(const std::vector<Bind>& binds, int share) {
  umask(022);
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) Fail("make mounts private", errno);
  std::vector<int> sources;
  sources.reserve(binds.size());
  for (const Bind& bind : binds) sources.push_back(CloneSource(bind));

  // Any directory that every host has will do: what it hides is held by its clones, and soon unmounted with the rest.
  const int root = NewTmpfs();
  if (!MoveMount(root, "/usr")) Fail("attach the private root", errno);
  if (fchdir(root) != 0) Fail("enter the private root", errno);
  for (std::size_t index = 0; index < binds.size(); ++index) Attach(sources[index], binds[index]);
  if (share >= 0) {
    Attach(share, {.source = "the shared directory", .target = kSharedRoot});
    Attach(NewProc(), {.source = "/proc", .target = "/proc"});
  }
  if (!SetAttributes(root, MOUNT_ATTR_RDONLY)) Fail("make the private root read-only", errno);
  close(root);

  if (syscall(SYS_pivot_root, ".", ".") != 0) Fail("pivot_root", errno);
  // The old root is now stacked on the new one at "."; what cannot be reached any more goes when it is not in use.
  if (umount2(".", MNT_DETACH) != 0) Fail("leave the host's root", errno);
  if (chdir("/") != 0) Fail("chdir", errno);
}

}  // namespace husk::hypervisor::launcher
