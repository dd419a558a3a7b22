// From a VmConfig to a launcher that waits to become its QEMU.
#ifndef HUSK_HYPERVISOR_QEMU_START_H_
#define HUSK_HYPERVISOR_QEMU_START_H_

#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/qemu/launch.h"
#include "hypervisor/qemu/launcher/plan.h"
#include "hypervisor/qemu/qemu_hypervisor.h"

namespace husk::hypervisor {

// What is the same for all VMs of one hypervisor.
struct StartOptions {
  QemuOptions qemu;
  Accelerator accelerator = Accelerator::kTcg;
  std::string kernel_command_line;
  std::vector<launcher::Bind> runtime_files;
};

// INVALID_ARGUMENT, naming the field, for what cannot be a VM. Files are looked at later.
Status CheckConfig(const VmConfig& config);

// Opens what the VM needs, makes its sockets and its log in `directory`, and starts the launcher. When it fails no
// process is left; files may be.
StatusOr<Launched> LaunchQemu(const Context& context, const StartOptions& options, const VmConfig& config,
                              int directory);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_START_H_
