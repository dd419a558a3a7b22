// What is mounted below a shared directory, in its file server's mount namespace. See
// docs/adr/0121-mounts-of-the-host-come-later.md.
#ifndef HUSK_HYPERVISOR_QEMU_MOUNTS_BELOW_H_
#define HUSK_HYPERVISOR_QEMU_MOUNTS_BELOW_H_

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "agent/common/mount_table.h"
#include "agent/common/status.h"
#include "hypervisor/hypervisor.h"

namespace husk::hypervisor {

// Those strictly below `directory` (absolute, without symlinks), by their paths relative to it. Of several on one path
// the one that lies on top.
std::map<std::string, Mount> MountsBelow(const std::vector<Mount>& table, const std::string& directory);

// What FollowMounts of the VM promises. `server`: a process in the namespace, whose root is the shared directory. The
// caller sees to it that no two calls for one namespace overlap. Needs CAP_SYS_ADMIN and CAP_SYS_CHROOT.
Status FollowMountsInNamespace(pid_t server, const FollowedShare& share, std::vector<std::string>& gone);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_MOUNTS_BELOW_H_
