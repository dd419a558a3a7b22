// What PID 1 does before anything else can work.
#ifndef HUSK_AGENT_GUEST_INIT_H_
#define HUSK_AGENT_GUEST_INIT_H_

#include <string>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::agent {

// Makes the initramfs a root that can be left by pivot_root, mounts the kernel's file systems, loads the modules listed
// in `module_list`, delegates the cgroup controllers and brings loopback up. Blocks; once, as PID 1.
Status SetUpGuest(const std::string& module_list);

// Opens the virtio-serial port of this name, non-blocking; waits until the kernel shows it.
StatusOr<UniqueFd> OpenPort(const std::string& name);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_INIT_H_
