// The device through which a VM gets memory while it runs (virtio-mem).
#ifndef HUSK_HYPERVISOR_QEMU_MEMORY_DEVICE_H_
#define HUSK_HYPERVISOR_QEMU_MEMORY_DEVICE_H_

#include <cstdint>
#include <optional>

#include "hypervisor/qemu/qmp_codec.h"

namespace husk::hypervisor {

// What the guest has of it by now, if that is what the event tells.
std::optional<std::uint64_t> PluggedMemoryOf(const QmpEvent& event);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_MEMORY_DEVICE_H_
