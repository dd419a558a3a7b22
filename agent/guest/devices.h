// The device nodes that a container asks for, as this guest has them.
#ifndef HUSK_AGENT_GUEST_DEVICES_H_
#define HUSK_AGENT_GUEST_DEVICES_H_

#include <cstdint>
#include <string>

#include "agent/common/status.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

struct DeviceNode {
  std::string path;  // in the container
  bool block = false;
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  std::string access;      // some of "r", "w", "m"
  std::uint32_t mode = 0;  // permission bits
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

// NOT_FOUND, by its name, for one that the guest does not have: of a disk, while the kernel does not show it.
// INVALID_ARGUMENT for a path or permissions that make no sense, and for a guest_path that is no character device below
// /dev: the guest's disks are named by their LUNs alone.
StatusOr<DeviceNode> FindDevice(const v1::Device& device);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_DEVICES_H_
