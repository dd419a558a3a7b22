// A device of the host that a container asks for, and how a guest can have it.
#ifndef HUSK_SANDBOX_HOST_DEVICE_H_
#define HUSK_SANDBOX_HOST_DEVICE_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// Either a block device of the host, opened, or a device that the guest's own kernel has.
struct HostDevice {
  UniqueFd descriptor;           // of the block device, for what the permissions allow; invalid: the guest's own
  dev_t number = 0;              // of the block device
  std::uint64_t size_bytes = 0;  // of the block device
  bool read_only = false;        // the permissions have no "w"
  std::string guest_path;        // of the guest's own
  ContainerDevice node;          // as asked for, with mode and owner filled in where the host has the device
};

// The path is resolved here, once: symlinks are followed, as the kubelet's names of block volumes are some.
// INVALID_ARGUMENT for paths and permissions that make no sense, and for what does not exist or is no device;
// UNIMPLEMENTED, by its name, for a device of the host that no virtual machine can have.
StatusOr<HostDevice> OpenHostDevice(const ContainerDevice& device);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_HOST_DEVICE_H_
