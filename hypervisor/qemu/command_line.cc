#include "hypervisor/qemu/command_line.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/disk.h"

namespace husk::hypervisor {
namespace {

// The scratch disk's; QEMU numbers those of later disks itself.
constexpr int kScratchFdset = 1;

class Arguments {
 public:
  explicit Arguments(const std::string& binary) : arguments_{binary} {}
  void Add(std::string_view option) { arguments_.emplace_back(option); }
  void Add(std::string_view option, std::string value) {
    arguments_.emplace_back(option);
    arguments_.push_back(std::move(value));
  }
  std::vector<std::string> Take() { return std::move(arguments_); }

 private:
  std::vector<std::string> arguments_;
};

// docs/adr/0118: an emulated VM cannot be given vCPUs safely while it runs. Its guest leaves offline what is too much.
bool HasAllVcpus(const CommandLineInput& input) {
  return input.accelerator == Accelerator::kTcg;
}

void AddMachine(const CommandLineInput& input, Arguments& arguments) {
  arguments.Add("-name", absl::StrCat("guest=", input.id));
  arguments.Add("-uuid", input.uuid);
  arguments.Add("-nodefaults");
  arguments.Add("-no-user-config");
  arguments.Add("-display", "none");
  arguments.Add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
  // A guest that resets or panics is over: its pod's fate is decided above, never by a silent second boot.
  arguments.Add("-no-reboot");
  arguments.Add("-action", "panic=exit-failure");
  // Nothing but what a Linux guest on virtio uses: each device less is less to attack and to wait for at boot.
  arguments.Add("-machine",
                "q35,usb=off,vmport=off,smbus=off,sata=off,graphics=off,i8042=off,dump-guest-core=off,"
                "memory-backend=boot");
  if (input.accelerator == Accelerator::kKvm) {
    arguments.Add("-accel", "kvm");
    arguments.Add("-cpu", "host");
  } else {
    // Translated code may take a gibibyte by default; a full buffer is only emptied and filled anew.
    arguments.Add("-accel", "tcg,thread=multi,tb-size=64");
    // Guests that are told of fast string instructions copy and clear a byte at a time: docs/adr/0136.
    arguments.Add("-cpu", "max,erms=off,fsrm=off");
  }
  // A socket per vCPU: what is plugged is a socket.
  arguments.Add("-smp", absl::StrCat("cpus=", HasAllVcpus(input) ? input.maximum_vcpus : input.vcpus, ",maxcpus=",
                                     input.maximum_vcpus, ",sockets=", input.maximum_vcpus, ",cores=1,threads=1"));
}

std::string MemoryBackend(const std::string& name, std::uint64_t bytes) {
  // Shared, because virtiofs needs it; not reserved, so that a high ceiling costs nothing until it is used.
  return absl::StrCat("memory-backend-memfd,id=", name, ",size=", bytes, ",share=on,reserve=off,dump=off");
}

void AddMemory(const CommandLineInput& input, Arguments& arguments) {
  const auto pluggable = input.maximum_memory_bytes - input.memory_bytes;
  arguments.Add("-object", MemoryBackend("boot", input.memory_bytes));
  if (pluggable == 0) {
    arguments.Add("-m", absl::StrCat("size=", input.memory_bytes >> 10, "K"));
    return;
  }
  arguments.Add("-m",
                absl::StrCat("size=", input.memory_bytes >> 10, "K,maxmem=", input.maximum_memory_bytes >> 10, "K"));
  arguments.Add("-object", MemoryBackend("pluggable", pluggable));
  arguments.Add("-device", absl::StrCat("virtio-mem-pci,id=", kMemoryDevice,
                                        ",memdev=pluggable,requested-size=0,disable-legacy=on"));
}

// Never inflated: the guest reports by it which pages are free, and QEMU gives those back to the host.
void AddFreePageReporting(Arguments& arguments) {
  arguments.Add("-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on,disable-legacy=on");
}

void AddScratch(const CommandLineScratch& scratch, Arguments& arguments) {
  arguments.Add("-add-fd", absl::StrCat("fd=", scratch.descriptor, ",set=", kScratchFdset));
  const BlockFile file{.fdset = kScratchFdset,
                       .length = scratch.length,
                       .block_device = scratch.block_device,
                       .read_only = scratch.read_only};
  arguments.Add("-blockdev", RawBlockNode(LunName(0), file).dump());
  arguments.Add("-device", ScsiDisk(0).dump());
}

void AddNetwork(const std::vector<CommandLineTap>& taps, Arguments& arguments) {
  int index = 0;
  for (const auto& tap : taps) {
    std::string netdev = absl::StrCat("tap,id=network", index, ",fd=", tap.descriptor);
    if (tap.vhost_descriptor >= 0) absl::StrAppend(&netdev, ",vhost=on,vhostfd=", tap.vhost_descriptor);
    arguments.Add("-netdev", std::move(netdev));
    arguments.Add("-device", absl::StrCat("virtio-net-pci,id=nic", index, ",netdev=network", index,
                                          ",mac=", tap.mac_address, ",romfile=,disable-legacy=on"));
    ++index;
  }
}

// Eight to a slot. No window for I/O ports, of which there are few, and virtio needs none.
void AddSharePorts(Arguments& arguments) {
  constexpr std::uint32_t kFirstSlot = 0x18;
  constexpr std::uint32_t kFunctions = 8;
  for (std::uint32_t port = 0; port < kSharePorts; ++port) {
    arguments.Add("-device", absl::StrCat("pcie-root-port,id=", SharePortName(port), ",bus=pcie.0,chassis=", port + 1,
                                          ",slot=", port + 1, ",multifunction=on,io-reserve=0,addr=0x",
                                          absl::Hex(kFirstSlot + port / kFunctions), ".", port % kFunctions));
  }
}

void AddChannels(const CommandLineInput& input, Arguments& arguments) {
  arguments.Add("-device", "virtio-serial-pci,id=serial,max_ports=2,disable-legacy=on");
  arguments.Add("-chardev", absl::StrCat("socket,id=agent,fd=", input.agent_descriptor, ",server=on,wait=off"));
  arguments.Add("-device", "virtserialport,id=agent-port,bus=serial.0,chardev=agent,name=org.husk.agent");
  arguments.Add("-chardev", absl::StrCat("socket,id=qmp,fd=", input.qmp_descriptor, ",server=on,wait=off"));
  arguments.Add("-mon", "chardev=qmp,mode=control");
  // A ring in QEMU's memory: a guest that floods its console fills no disk.
  arguments.Add("-chardev", absl::StrCat("ringbuf,id=", kConsoleChardev, ",size=65536"));
  arguments.Add("-serial", absl::StrCat("chardev:", kConsoleChardev));
}

}  // namespace

std::string SharePortName(std::uint32_t port) {
  return absl::StrCat("share-port", port);
}

std::string LunName(std::uint32_t lun) {
  return absl::StrCat("lun", lun);
}

std::vector<std::string> BuildCommandLine(const CommandLineInput& input) {
  Arguments arguments(input.qemu_binary);
  AddMachine(input, arguments);
  AddMemory(input, arguments);
  AddFreePageReporting(arguments);
  arguments.Add("-device", "virtio-scsi-pci,id=scsi,disable-legacy=on");
  if (input.scratch) AddScratch(*input.scratch, arguments);
  AddNetwork(input.taps, arguments);
  AddSharePorts(arguments);
  AddChannels(input, arguments);
  arguments.Add("-object", "rng-builtin,id=random");
  arguments.Add("-device", "virtio-rng-pci,id=rng,rng=random,disable-legacy=on");
  arguments.Add("-device", "vmgenid,id=generation,guid=auto");
  if (!input.kernel.empty()) {
    arguments.Add("-kernel", input.kernel);
    if (!input.initrd.empty()) arguments.Add("-initrd", input.initrd);
    const bool some_stay_offline = HasAllVcpus(input) && input.vcpus < input.maximum_vcpus;
    arguments.Add("-append", some_stay_offline ? absl::StrCat(input.kernel_command_line, " maxcpus=", input.vcpus)
                                               : input.kernel_command_line);
  }
  return arguments.Take();
}

}  // namespace husk::hypervisor
