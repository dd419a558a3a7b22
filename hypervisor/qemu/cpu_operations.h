// Steps of plugging a VM's processors in and out, by QMP.
#ifndef HUSK_HYPERVISOR_QEMU_CPU_OPERATIONS_H_
#define HUSK_HYPERVISOR_QEMU_CPU_OPERATIONS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "hypervisor/qemu/qmp_client.h"

namespace husk::hypervisor {

// Where a processor is or can be.
struct CpuSlot {
  std::uint32_t number = 0;  // its socket, which is its APIC id too: one processor a socket
  std::string type;          // the driver
  nlohmann::json place;      // the properties that device_add wants
  std::string path;          // of the processor that is in it; empty: none is
};

// From the reply to query-hotpluggable-cpus, by number, without gaps. INTERNAL if it is anything else.
StatusOr<std::vector<CpuSlot>> ParseCpuSlots(const nlohmann::json& reply);
// Those of a VM.
StatusOr<std::vector<CpuSlot>> ReadCpuSlots(const Context& context, QmpClient& qmp);

// False: an emulated VM. Its processors must never be taken out: QEMU uses them after that, and the next that is
// plugged in ends the process (seen with 7.2: signal 11, or the heap's own checks).
// docs/adr/0118-emulated-vcpus-stay.md.
StatusOr<bool> HasKvm(const Context& context, QmpClient& qmp);

Status PlugCpu(const Context& context, QmpClient& qmp, const CpuSlot& slot);
// Asks the guest for it and waits until it has let go. FAILED_PRECONDITION when the guest refuses.
Status UnplugCpu(const Context& context, QmpClient& qmp, const CpuSlot& slot);

// True for the event by which a guest's ACPI tells that it does not let the processor go.
bool RefusesToEject(const QmpEvent& event, std::uint32_t number);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_CPU_OPERATIONS_H_
