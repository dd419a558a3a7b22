// Which files of the host QEMU and virtiofsd need to see.
#ifndef HUSK_HYPERVISOR_QEMU_RUNTIME_FILES_H_
#define HUSK_HYPERVISOR_QEMU_RUNTIME_FILES_H_

#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "hypervisor/qemu/launcher/plan.h"

namespace husk::hypervisor {

// QEMU's binary, its loader and libraries, the module that translates code, its firmware, and /dev/null. Nothing
// that depends on the VM.
StatusOr<std::vector<launcher::Bind>> QemuRuntimeFiles(const Context& context, const std::string& qemu_binary);

// The same for the file server, virtiofsd.
StatusOr<std::vector<launcher::Bind>> FileServerFiles(const Context& context, const std::string& virtiofsd_binary);

// The paths in the output of "ld.so --list": libraries and the loader itself.
std::vector<std::string> ParseLoaderList(const std::string& output);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_RUNTIME_FILES_H_
