// The QEMU implementation of hypervisor.h.
#ifndef HUSK_HYPERVISOR_QEMU_QEMU_HYPERVISOR_H_
#define HUSK_HYPERVISOR_QEMU_QEMU_HYPERVISOR_H_

#include <memory>
#include <optional>
#include <string>

#include "hypervisor/hypervisor.h"

namespace husk::hypervisor {

struct QemuOptions {
  std::string qemu_binary = "/usr/bin/qemu-system-x86_64";
  std::string virtiofsd_binary = "/usr/lib/qemu/virtiofsd";  // may be missing: then no directory can be shared
  std::string launcher_binary;                               // husk-vm-launcher: drops privileges, then becomes QEMU
  std::string kernel;                                        // bzImage or vmlinux
  std::string initrd;
  std::optional<Accelerator> accelerator;  // absent: probed
};

StatusOr<std::unique_ptr<Hypervisor>> NewQemuHypervisor(const QemuOptions& options);

// Without starting a VM: whether KVM can really run a guest here.
AcceleratorProbe ProbeAccelerator();

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_QEMU_HYPERVISOR_H_
