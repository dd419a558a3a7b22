#include "sandbox/volumes/shared_directories.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::sandbox {

StatusOr<bool> SharedDirectories::Share(const Context& context, const VolumeSource& source) const {
  HUSK_ASSIGN_OR_RETURN(const bool present, Has(context, source.id));
  if (present) return false;
  // The path is resolved here, once: from now on the directory is this one.
  hypervisor::SharedDirectory share{
      .tag = source.id,
      .directory = UniqueFd(open(source.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)),
      .path = source.path,
      .read_only = source.read_only,
      .alone = source.follow_mounts,
      .immediate = source.immediate,
  };
  if (!share.directory.valid()) return ErrnoStatus(errno, absl::StrCat("open ", source.path));
  HUSK_ASSIGN_OR_RETURN_DOING(share.cgroup_procs, cgroup_procs_(), "find the pod's cgroup");
  HUSK_RETURN_IF_ERROR(vm_->AttachSharedDirectory(context, share));
  return true;
}

StatusOr<bool> SharedDirectories::Has(const Context& context, const std::string& id) const {
  HUSK_ASSIGN_OR_RETURN(const auto present, vm_->SharedDirectories(context));
  return std::find(present.begin(), present.end(), id) != present.end();
}

Status SharedDirectories::Follow(const Context& context, const VolumeSource& source,
                                 std::vector<std::string>& gone) const {
  return vm_->FollowMounts(context, {.tag = source.id, .path = source.path, .read_only = source.read_only}, gone);
}

Status SharedDirectories::End(const Context& context, const std::string& id) const {
  return vm_->alive() ? vm_->DetachSharedDirectory(context, id) : absl::OkStatus();
}

}  // namespace husk::sandbox
