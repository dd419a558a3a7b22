// Directories of the host that a pod's guest has by virtiofs.
#ifndef HUSK_SANDBOX_VOLUMES_SHARED_DIRECTORIES_H_
#define HUSK_SANDBOX_VOLUMES_SHARED_DIRECTORIES_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "hypervisor/hypervisor.h"
#include "sandbox/volumes/volume_source.h"

namespace husk::sandbox {

// Thread safe.
class SharedDirectories {
 public:
  // `cgroup_procs` makes the pod's cgroup if need be and tells its files, as HostCgroups::Create does.
  SharedDirectories(std::shared_ptr<hypervisor::Vm> vm,
                    std::function<StatusOr<std::vector<std::string>>()> cgroup_procs)
      : vm_(std::move(vm)), cgroup_procs_(std::move(cgroup_procs)) {}

  // By the source's id for a tag. False if the VM has it already: it then stays the directory that it was, whatever the
  // path names by now.
  StatusOr<bool> Share(const Context& context, const VolumeSource& source) const;
  // Whether the VM has it.
  StatusOr<bool> Has(const Context& context, const std::string& id) const;
  // Of a source that follows the host's mounts, as Vm::FollowMounts says it.
  Status Follow(const Context& context, const VolumeSource& source, std::vector<std::string>& gone) const;
  // OK if there is none, or no VM any more.
  Status End(const Context& context, const std::string& id) const;

 private:
  const std::shared_ptr<hypervisor::Vm> vm_;
  const std::function<StatusOr<std::vector<std::string>>()> cgroup_procs_;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_VOLUMES_SHARED_DIRECTORIES_H_
