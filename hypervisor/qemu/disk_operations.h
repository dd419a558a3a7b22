// The QMP conversations that plug disks in and take them away. Callers take turns.
#ifndef HUSK_HYPERVISOR_QEMU_DISK_OPERATIONS_H_
#define HUSK_HYPERVISOR_QEMU_DISK_OPERATIONS_H_

#include <set>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "hypervisor/qemu/disk.h"
#include "hypervisor/qemu/qmp_client.h"

namespace husk::hypervisor {

// Passes the descriptors, makes the block nodes and the device. After a failure some of it may exist: RemoveDisk.
Status AddDisk(const Context& context, QmpClient& qmp, std::uint32_t lun, bool read_only,
               std::vector<OpenedExtent> extents);
// Takes away whatever of that LUN's exists: device, block nodes, descriptors.
Status RemoveDisk(const Context& context, QmpClient& qmp, std::uint32_t lun);

// Takes a device away and waits until the guest has let go of it. OK if there is none.
Status RemoveDevice(const Context& context, QmpClient& qmp, const std::string& name);

// The LUNs that descriptors were passed for, the scratch disk's not among them.
StatusOr<std::set<std::uint32_t>> LunsWithDescriptors(const Context& context, QmpClient& qmp);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_DISK_OPERATIONS_H_
