// The kernel's table of mounts (proc_pid_mountinfo(5)).
#ifndef HUSK_AGENT_COMMON_MOUNT_TABLE_H_
#define HUSK_AGENT_COMMON_MOUNT_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "agent/common/status.h"

namespace husk {

struct Mount {
  std::uint64_t id = 0;     // statx's mount id, while it is mounted
  std::string device;       // "major:minor" of the file system
  std::string root;         // the part of the file system that is mounted
  std::string mount_point;  // unescaped
  bool shared = false;      // propagates to its peers
  std::string type;
  std::vector<std::string> super_options;
};

// In the kernel's order: of two mounts on one path the later lies on top. `path`: normally /proc/self/mountinfo.
StatusOr<std::vector<Mount>> ReadMountTable(const std::string& path = "/proc/self/mountinfo");

// The mount that `directory` (absolute, without symlinks) lies on; nullptr if the table has none for it.
const Mount* FindMount(const std::vector<Mount>& mounts, const std::string& directory);

}  // namespace husk

#endif  // HUSK_AGENT_COMMON_MOUNT_TABLE_H_
