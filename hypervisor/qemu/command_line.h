// QEMU's command line for one VM.
#ifndef HUSK_HYPERVISOR_QEMU_COMMAND_LINE_H_
#define HUSK_HYPERVISOR_QEMU_COMMAND_LINE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hypervisor/hypervisor.h"

namespace husk::hypervisor {

// Names by which the QMP calls find what the command line made.
inline constexpr char kConsoleChardev[] = "console";
inline constexpr char kMemoryDevice[] = "memory";  // the virtio-mem device
inline constexpr char kScsiBus[] = "scsi.0";
// Of a disk's device and its topmost block node.
std::string LunName(std::uint32_t lun);

// Ports into which shared directories are plugged: as many as a VM can have.
inline constexpr std::uint32_t kSharePorts = 16;
std::string SharePortName(std::uint32_t port);

// All descriptors are numbers in QEMU's own table.
struct CommandLineTap {
  int descriptor = -1;
  int vhost_descriptor = -1;  // of /dev/vhost-net, or -1
  std::string mac_address;
};

struct CommandLineScratch {
  int descriptor = -1;
  std::uint64_t length = 0;
  bool read_only = false;
  bool block_device = false;
};

struct CommandLineInput {
  std::string qemu_binary;
  Accelerator accelerator = Accelerator::kTcg;
  std::string id;
  std::string uuid;
  std::uint32_t vcpus = 1;
  std::uint32_t maximum_vcpus = 1;
  std::uint64_t memory_bytes = 0;
  std::uint64_t maximum_memory_bytes = 0;
  std::string kernel;  // paths as QEMU sees them; an empty kernel: the firmware finds nothing to boot and waits
  std::string initrd;
  std::string kernel_command_line;
  int qmp_descriptor = -1;
  int agent_descriptor = -1;
  std::optional<CommandLineScratch> scratch;
  std::vector<CommandLineTap> taps;
};

// The strings must be free of commas where QEMU splits at them: `id` and MAC addresses are checked by the caller.
std::vector<std::string> BuildCommandLine(const CommandLineInput& input);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_COMMAND_LINE_H_
