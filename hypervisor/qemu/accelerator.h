// The parts of ProbeAccelerator (qemu_hypervisor.h) that can be tested on any machine.
#ifndef HUSK_HYPERVISOR_QEMU_ACCELERATOR_H_
#define HUSK_HYPERVISOR_QEMU_ACCELERATOR_H_

#include <string>

namespace husk::hypervisor {

// Of the "flags" line of /proc/cpuinfo.
bool HasVirtualisationFlag(const std::string& flags_line);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_ACCELERATOR_H_
