#include "hypervisor/qemu/start.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/command_line.h"
#include "hypervisor/qemu/disk.h"
#include "hypervisor/qemu/process.h"
#include "hypervisor/qemu/state_files.h"

namespace husk::hypervisor {
namespace {

constexpr std::size_t kMaximumId = 128;
constexpr std::uint64_t kMemoryUnit = std::uint64_t{2} << 20;  // virtio-mem's block
constexpr std::uint32_t kMaximumVcpus = 255;                   // what q35 takes without interrupt remapping
constexpr char kKernelInside[] = "/guest/kernel";
constexpr char kInitrdInside[] = "/guest/initrd";
constexpr char kKvm[] = "/dev/kvm";
constexpr char kVhostNet[] = "/dev/vhost-net";

bool IsId(const std::string& id) {
  const auto good = [](unsigned char byte) {
    return std::isalnum(byte) != 0 || byte == '-' || byte == '_' || byte == '.';
  };
  return !id.empty() && id.size() <= kMaximumId && std::all_of(id.begin(), id.end(), good);
}

bool IsMacAddress(const std::string& mac) {
  if (mac.size() != 17) return false;
  for (std::size_t index = 0; index < mac.size(); ++index) {
    const auto byte = static_cast<unsigned char>(mac[index]);
    if (index % 3 == 2 ? byte != ':' : std::isxdigit(byte) == 0) return false;
  }
  return true;
}

Status CheckMemory(const VmConfig& config) {
  if (config.memory_bytes == 0 || config.memory_bytes % kMemoryUnit != 0) {
    return absl::InvalidArgumentError(absl::StrCat("memory_bytes=", config.memory_bytes, " is no multiple of 2 MiB"));
  }
  if (config.maximum_memory_bytes < config.memory_bytes || config.maximum_memory_bytes % kMemoryUnit != 0) {
    return absl::InvalidArgumentError(absl::StrCat("maximum_memory_bytes=", config.maximum_memory_bytes,
                                                   " is less than memory_bytes or no multiple of 2 MiB"));
  }
  return absl::OkStatus();
}

StatusOr<std::string> NewUuid() {
  const UniqueFd file(open("/proc/sys/kernel/random/uuid", O_RDONLY | O_CLOEXEC));
  std::array<char, 36> uuid{};
  if (!file.valid() || read(file.get(), uuid.data(), uuid.size()) != static_cast<ssize_t>(uuid.size())) {
    return ErrnoStatus(errno, "read a random UUID");
  }
  return std::string(uuid.data(), uuid.size());
}

// Opens files for one VM and gives them their numbers in the child.
class Preparation {
 public:
  Preparation(const StartOptions& options, const VmConfig& config, int directory)
      : options_(options), config_(config), directory_(directory) {}

  Status Prepare() {
    plan_.user = config_.user;
    plan_.group = config_.group;
    plan_.binds = options_.runtime_files;
    plan_.state_directory = child_.Add(directory_);
    HUSK_ASSIGN_OR_RETURN(log_, CreateLog(directory_));
    HUSK_ASSIGN_OR_RETURN(go_, MakeGoSockets());
    plan_.go = child_.Add(go_.theirs.get());
    HUSK_RETURN_IF_ERROR(AddSurroundings());
    HUSK_ASSIGN_OR_RETURN(command_line_.uuid, NewUuid());
    command_line_.qemu_binary = options_.qemu.qemu_binary;
    command_line_.accelerator = options_.accelerator;
    command_line_.id = config_.id;
    command_line_.vcpus = config_.vcpus;
    command_line_.maximum_vcpus = config_.maximum_vcpus;
    command_line_.memory_bytes = config_.memory_bytes;
    command_line_.maximum_memory_bytes = config_.maximum_memory_bytes;
    AddKernel();
    HUSK_RETURN_IF_ERROR(AddSockets());
    HUSK_RETURN_IF_ERROR(AddScratch());
    AddTaps();
    if (options_.accelerator == Accelerator::kKvm) HUSK_RETURN_IF_ERROR(AddKvm());
    plan_.command = BuildCommandLine(command_line_);
    return absl::OkStatus();
  }

  StatusOr<Launched> Launch(const Context& context) {
    const auto arguments = launcher::PlanArguments(options_.qemu.launcher_binary, plan_);
    HUSK_ASSIGN_OR_RETURN(const pid_t pid, Spawn(arguments, child_, log_.get()));
    // Each end that QEMU has must be closed here: its death is to close it.
    opened_.clear();
    return AwaitIdentity(context, pid, std::move(go_), directory_);
  }

 private:
  // Keeps it open until the child has it; its number there.
  int Own(UniqueFd descriptor) {
    const int number = child_.Add(descriptor.get());
    opened_.push_back(std::move(descriptor));
    return number;
  }
  int OwnForQemu(UniqueFd descriptor) {
    plan_.keep.push_back(Own(std::move(descriptor)));
    return plan_.keep.back();
  }

  Status AddSurroundings() {
    plan_.new_network_namespace = config_.network_namespace.empty();
    if (!plan_.new_network_namespace) {
      UniqueFd file(open(config_.network_namespace.c_str(), O_RDONLY | O_CLOEXEC));
      if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("network namespace ", config_.network_namespace));
      plan_.network_namespace = Own(std::move(file));
    }
    for (const auto& path : config_.cgroup_procs) {
      UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
      if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("cgroup ", path));
      plan_.cgroup_procs.push_back(Own(std::move(file)));
    }
    return absl::OkStatus();
  }

  void AddKernel() {
    if (options_.qemu.kernel.empty()) return;
    plan_.binds.push_back({.source = options_.qemu.kernel, .target = kKernelInside});
    command_line_.kernel = kKernelInside;
    command_line_.kernel_command_line = options_.kernel_command_line;
    if (options_.qemu.initrd.empty()) return;
    plan_.binds.push_back({.source = options_.qemu.initrd, .target = kInitrdInside});
    command_line_.initrd = kInitrdInside;
  }

  Status AddSockets() {
    HUSK_ASSIGN_OR_RETURN(auto qmp, ListenIn(directory_, kQmpSocket));
    command_line_.qmp_descriptor = OwnForQemu(std::move(qmp));
    HUSK_ASSIGN_OR_RETURN(auto agent, ListenIn(directory_, kAgentSocket));
    command_line_.agent_descriptor = OwnForQemu(std::move(agent));
    return absl::OkStatus();
  }

  Status AddScratch() {
    if (config_.scratch.extents.empty()) return absl::OkStatus();
    HUSK_ASSIGN_OR_RETURN_DOING(auto extents, OpenDisk(config_.scratch), "scratch disk");
    command_line_.scratch = CommandLineScratch{
        .length = extents[0].length, .read_only = config_.scratch.read_only, .block_device = extents[0].block_device};
    command_line_.scratch->descriptor = OwnForQemu(std::move(extents[0].descriptor));
    return absl::OkStatus();
  }

  void AddTaps() {
    for (const auto& device : config_.network_devices) {
      CommandLineTap tap{.mac_address = device.mac_address};
      tap.descriptor = child_.Add(device.tap.get());
      plan_.keep.push_back(tap.descriptor);
      if (options_.accelerator == Accelerator::kKvm) {
        UniqueFd vhost(open(kVhostNet, O_RDWR | O_CLOEXEC));
        if (vhost.valid()) tap.vhost_descriptor = OwnForQemu(std::move(vhost));
      }
      command_line_.taps.push_back(std::move(tap));
    }
  }

  // QEMU 7.2 opens /dev/kvm by itself, so it must see it and be in its group.
  Status AddKvm() {
    struct stat status{};
    if (stat(kKvm, &status) != 0) return ErrnoStatus(errno, kKvm);
    plan_.binds.push_back({.source = kKvm, .target = kKvm});
    constexpr mode_t kForAll = S_IROTH | S_IWOTH;
    if ((status.st_mode & kForAll) != kForAll && status.st_gid != 0) {
      plan_.supplementary_groups.push_back(status.st_gid);
    }
    return absl::OkStatus();
  }

  const StartOptions& options_;
  const VmConfig& config_;
  const int directory_;
  launcher::Plan plan_;
  CommandLineInput command_line_;
  ChildDescriptors child_;
  std::vector<UniqueFd> opened_;
  UniqueFd log_;
  GoSockets go_;
};

}  // namespace

Status CheckConfig(const VmConfig& config) {
  if (!IsId(config.id)) return absl::InvalidArgumentError("id: letters, digits and -_. only, 128 at most");
  if (config.vcpus == 0 || config.maximum_vcpus < config.vcpus || config.maximum_vcpus > kMaximumVcpus) {
    return absl::InvalidArgumentError(
        absl::StrCat("vcpus=", config.vcpus, " maximum_vcpus=", config.maximum_vcpus, ": must be 1 to 255, in order"));
  }
  HUSK_RETURN_IF_ERROR(CheckMemory(config));
  if (config.user == 0 || config.group == 0) return absl::InvalidArgumentError("user and group must not be 0");
  if (config.scratch.extents.size() > 1) return absl::InvalidArgumentError("scratch: one extent at most");
  for (const auto& device : config.network_devices) {
    if (!IsMacAddress(device.mac_address)) {
      return absl::InvalidArgumentError(absl::StrCat("mac_address '", device.mac_address, "'"));
    }
    if (!device.tap.valid()) return absl::InvalidArgumentError("a network device needs a tap");
  }
  return absl::OkStatus();
}

StatusOr<Launched> LaunchQemu(const Context& context, const StartOptions& options, const VmConfig& config,
                              int directory) {
  Preparation preparation(options, config, directory);
  HUSK_RETURN_IF_ERROR(preparation.Prepare());
  return preparation.Launch(context);
}

}  // namespace husk::hypervisor
