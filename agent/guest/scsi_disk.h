// Disks of the VM's virtio-scsi controller, by LUN.
#ifndef HUSK_AGENT_GUEST_SCSI_DISK_H_
#define HUSK_AGENT_GUEST_SCSI_DISK_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "agent/common/status.h"

namespace husk::agent {

// For how long to look for a disk. One that was plugged in shows within a second, but a VM that emulates and gets next
// to nothing of its host's CPUs has been seen to need more than ten.
inline constexpr auto kDiskPatience = std::chrono::seconds(60);

// The device node, such as /dev/sdb, of the disk with this LUN. NOT_FOUND while the kernel does not show it; then the
// controllers are asked to look again, at most once a second. `sysfs` is for tests.
StatusOr<std::string> FindScsiDisk(std::uint32_t lun, const std::string& sysfs = "/sys");

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_SCSI_DISK_H_
