// The device through which a VM gets memory while it runs (virtio-mem), over QMP. All sizes in bytes.
#ifndef HUSK_HYPERVISOR_QEMU_MEMORY_DEVICE_H_
#define HUSK_HYPERVISOR_QEMU_MEMORY_DEVICE_H_

#include <cstdint>
#include <optional>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "hypervisor/qemu/qmp_client.h"
#include "hypervisor/qemu/qmp_codec.h"

namespace husk::hypervisor {

// The most that it can have; 0 where there is none. To list its devices QEMU goes through all that the machine is made
// of, which takes two milliseconds of the pod's CPU time: the rest is asked for by name.
[[nodiscard]] StatusOr<std::uint64_t> MaximumPluggedMemory(const Context& context, QmpClient& qmp);
// What the guest has of it. NOT_FOUND where there is none.
[[nodiscard]] StatusOr<std::uint64_t> PluggedMemory(const Context& context, QmpClient& qmp);
// What the guest was told to have of it.
[[nodiscard]] StatusOr<std::uint64_t> RequestedPluggedMemory(const Context& context, QmpClient& qmp);
// Tells it. It takes its time.
Status RequestPluggedMemory(const Context& context, QmpClient& qmp, std::uint64_t bytes);

// What the guest has of it by now, if that is what the event tells.
std::optional<std::uint64_t> PluggedMemoryOf(const QmpEvent& event);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_MEMORY_DEVICE_H_
