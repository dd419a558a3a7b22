// Small files of the guest itself: sysfs, procfs, cgroupfs, state below /run. Never for paths inside a container.
#ifndef HUSK_AGENT_GUEST_FILES_H_
#define HUSK_AGENT_GUEST_FILES_H_

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::agent {

// At most `maximum` bytes of it.
StatusOr<std::string> ReadFile(const std::string& path, std::size_t maximum = std::size_t{1} << 20);
// One write(2), as sysfs wants it; the file must exist.
Status WriteFile(const std::string& path, std::string_view contents);
// Creates or replaces the file.
Status CreateFile(const std::string& path, std::string_view contents, mode_t mode);
// Like mkdir -p; `mode` is for those that it makes.
Status MakeDirectories(const std::string& path, mode_t mode);
// False also if it does not exist.
bool IsMountPoint(const std::string& path);
// rm -rf, without following links.
Status RemoveTree(const std::string& path);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_FILES_H_
