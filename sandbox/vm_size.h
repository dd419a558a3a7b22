// How large a pod's VM is made.
#ifndef HUSK_SANDBOX_VM_SIZE_H_
#define HUSK_SANDBOX_VM_SIZE_H_

#include <cstdint>
#include <vector>

#include "agent/common/status.h"
#include "sandbox/host/cgroup.h"
#include "sandbox/runtime.h"
#include "sandbox/types.h"

namespace husk::sandbox {

struct VmSize {
  std::uint32_t vcpus = 1;
  std::uint32_t maximum_vcpus = 1;
  std::uint64_t memory_bytes = 0;          // a multiple of 2 MiB
  std::uint64_t maximum_memory_bytes = 0;  // likewise
};

// What holds for one pod: the node's, as WithHostLimits gives them, but for what the pod chose. The maxima hold.
RuntimeOptions OptionsFor(const RuntimeOptions& node, const VmChoices& choices);

// In thousandths, rounded up: sums of fractions stay exact enough. 0: no limit.
std::uint64_t MilliCpus(const LinuxResources& resources);
// In bytes. 0: no limit.
std::uint64_t MemoryLimit(const LinuxResources& resources);

// Of a VM whose containers may use so much together: with room for the guest's kernel, or what the overhead leaves
// beside QEMU.
std::uint64_t MemoryForLimits(std::uint64_t limits_bytes, const LinuxResources& overhead);

// What a VM is started with, before it has a container: SizeWanted tells more.
VmSize SizeVm(const RuntimeOptions& options, const LinuxResources& resources, const LinuxResources& overhead);

// What the pod's cgroup on the host may use: the VM's memory and what QEMU needs for itself, and the CPU that resources
// and overhead announce. Nothing announced: no limit of the CPU.
HostLimits LimitsOnHost(std::uint64_t vm_memory_bytes, const LinuxResources& resources, const LinuxResources& overhead);

// What it may use until the guest's agent answers: the same, with shares of the CPU for a boot.
// See docs/adr/0120-a-boot-has-shares-of-its-own.md.
HostLimits LimitsWhileBooting(const HostLimits& limits);

// What has to be plugged into a VM so that its guest can have all these huge pages at once: themselves, the kernel's
// descriptors of that memory, and for pages that are larger than what is plugged at once, one more, since it begins
// with memory that the kernel uses itself. A multiple of 128 MiB; 0 for none.
std::uint64_t MemoryForHugePages(const std::vector<LinuxResources>& containers);

// Pages of 1 GiB or more, which the guest's kernel cannot move.
bool WantsGiganticPages(const LinuxResources& resources);

// `before` with what `change` names: its fields that are neither 0 nor empty, each entry of `unified` and of
// `hugepage_limits`. The score of the
// OOM killer belongs to processes that run already, and stays.
LinuxResources Changed(const LinuxResources& before, const LinuxResources& change);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_VM_SIZE_H_
