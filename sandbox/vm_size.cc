#include "sandbox/vm_size.h"

#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <type_traits>

#include "absl/strings/match.h"
#include "sandbox/wanted_size.h"

namespace husk::sandbox {
namespace {

constexpr std::uint64_t kMemoryStep = std::uint64_t{2} << 20;
// What the kernel gives to a group that nobody has said anything about, and Kubernetes to a request of one CPU.
constexpr std::uint64_t kBootShares = 1024;

std::uint64_t RoundUp(std::uint64_t bytes) {
  return (bytes + kMemoryStep - 1) / kMemoryStep * kMemoryStep;
}

// What the guest needs beside its containers: its kernel and the agent, and the kernel's page descriptors (64 bytes of
// 4096). With Debian's cloud kernel a guest of 256 MiB has 152 for them.
std::uint64_t GuestOverhead(std::uint64_t containers_bytes) {
  constexpr std::uint64_t kKernel = std::uint64_t{112} << 20;
  return kKernel + containers_bytes / 64;
}

// QEMU's own: code, translated blocks, page tables, buffers. It is generous, because what is over it kills the pod.
std::uint64_t QemuOverhead(std::uint64_t vm_bytes) {
  constexpr std::uint64_t kQemu = std::uint64_t{320} << 20;
  return kQemu + vm_bytes / 64;
}

std::uint64_t NotNegative(std::int64_t value) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, value));
}

// The overhead pays for QEMU too. A guest that had all of it would fill it with its page cache one day, and the host
// would kill the pod at the kubelet's limit.
std::uint64_t GuestPart(const LinuxResources& overhead) {
  const std::uint64_t announced = NotNegative(overhead.memory_limit_bytes);
  return announced - std::min(announced, QemuOverhead(announced));
}

void FillUnlimitedMemory(RuntimeOptions& options) {
  if (options.unlimited_memory_bytes != 0) return;
  // A process that runs away in one pod shall not take the node.
  options.unlimited_memory_bytes = std::max(options.default_memory_bytes, RoundUp(options.maximum_memory_bytes / 2));
}

}  // namespace

StatusOr<RuntimeOptions> WithHostLimits(RuntimeOptions options) {
  if (options.maximum_vcpus == 0) {
    options.maximum_vcpus = static_cast<std::uint32_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  }
  if (options.maximum_memory_bytes == 0) {
    struct sysinfo host{};
    if (sysinfo(&host) != 0) return ErrnoStatus(errno, "ask for the host's memory");
    options.maximum_memory_bytes = std::uint64_t{host.totalram} * host.mem_unit;
  }
  options.maximum_memory_bytes = options.maximum_memory_bytes / kMemoryStep * kMemoryStep;
  options.default_memory_bytes = RoundUp(options.default_memory_bytes);
  FillUnlimitedMemory(options);
  if (options.default_memory_bytes == 0 || options.default_memory_bytes > options.maximum_memory_bytes) {
    return absl::InvalidArgumentError("the VMs' default memory is 0 or more than their maximum");
  }
  if (options.default_vcpus == 0 || options.default_vcpus > options.maximum_vcpus) {
    return absl::InvalidArgumentError("the VMs' default number of CPUs is 0 or more than their maximum");
  }
  options.unlimited_vcpus = std::min(options.unlimited_vcpus, options.maximum_vcpus);
  return options;
}

RuntimeOptions OptionsFor(const RuntimeOptions& node, const VmChoices& choices) {
  RuntimeOptions options = node;
  // The node's maxima may have been lowered since the pod was made.
  options.default_vcpus = std::min(choices.default_vcpus.value_or(node.default_vcpus), node.maximum_vcpus);
  options.unlimited_vcpus = std::min(choices.unlimited_vcpus.value_or(node.unlimited_vcpus), node.maximum_vcpus);
  options.default_memory_bytes =
      std::min(RoundUp(choices.default_memory_bytes.value_or(node.default_memory_bytes)), node.maximum_memory_bytes);
  options.unlimited_memory_bytes = choices.unlimited_memory_bytes.value_or(node.unlimited_memory_bytes);
  FillUnlimitedMemory(options);
  options.scratch_bytes = choices.scratch_bytes.value_or(node.scratch_bytes);
  return options;
}

std::uint64_t MilliCpus(const LinuxResources& resources) {
  if (resources.cpu_quota <= 0 || resources.cpu_period <= 0) return 0;
  const auto quota = static_cast<std::uint64_t>(std::min(resources.cpu_quota, std::int64_t{1} << 50));
  const auto period = static_cast<std::uint64_t>(resources.cpu_period);
  return (quota * 1000 + period - 1) / period;
}

std::uint64_t MemoryLimit(const LinuxResources& resources) {
  return NotNegative(resources.memory_limit_bytes);
}

std::uint64_t MemoryForLimits(std::uint64_t limits_bytes, const LinuxResources& overhead) {
  // Containers shall meet their own limits before the guest is out of memory.
  return limits_bytes + std::max(GuestPart(overhead), GuestOverhead(limits_bytes));
}

VmSize SizeVm(const RuntimeOptions& options, const LinuxResources& resources, const LinuxResources& overhead) {
  const WantedSize wanted = SizeWanted(options, {.resources = resources, .overhead = overhead, .containers = {}});
  return {.vcpus = wanted.vcpus,
          .maximum_vcpus = options.maximum_vcpus,
          .memory_bytes = wanted.memory_bytes,
          .maximum_memory_bytes = options.maximum_memory_bytes};
}

HostLimits LimitsOnHost(std::uint64_t vm_memory_bytes, const LinuxResources& resources,
                        const LinuxResources& overhead) {
  HostLimits limits;
  limits.memory_bytes =
      vm_memory_bytes + std::max(NotNegative(overhead.memory_limit_bytes), QemuOverhead(vm_memory_bytes));
  limits.cpu_shares = NotNegative(resources.cpu_shares);
  if (resources.cpu_quota < 0) limits.cpu_quota = -1;
  if (const std::uint64_t milli = MilliCpus(resources); milli > 0) {
    constexpr std::uint64_t kPeriod = 100'000;
    limits.cpu_period = kPeriod;
    limits.cpu_quota = static_cast<std::int64_t>((milli + MilliCpus(overhead)) * (kPeriod / 1000));
  }
  return limits;
}

HostLimits LimitsWhileBooting(const HostLimits& limits) {
  HostLimits booting = limits;
  if (limits.cpu_shares > 0) booting.cpu_shares = std::max(limits.cpu_shares, kBootShares);
  return booting;
}

bool WantsGiganticPages(const LinuxResources& resources) {
  return std::any_of(resources.hugepage_limits.begin(), resources.hugepage_limits.end(),
                     [](const auto& limit) { return limit.second != 0 && absl::EndsWith(limit.first, "GB"); });
}

std::uint64_t MemoryForHugePages(const std::vector<LinuxResources>& containers) {
  // Linux makes descriptors for as much at once.
  constexpr std::uint64_t kBlock = std::uint64_t{128} << 20;
  constexpr std::uint64_t kGibibyte = std::uint64_t{1} << 30;
  constexpr std::uint64_t kMost = std::uint64_t{1} << 60;
  std::uint64_t bytes = 0;
  bool gigantic = false;
  for (const LinuxResources& resources : containers) {
    for (const auto& [size, limit] : resources.hugepage_limits) {
      bytes = std::min(bytes + std::min(limit, kMost), kMost);
    }
    gigantic = gigantic || WantsGiganticPages(resources);
  }
  if (bytes == 0) return 0;
  bytes += bytes / 64 + (std::uint64_t{16} << 20);
  if (gigantic) bytes += kGibibyte;
  return (bytes + kBlock - 1) / kBlock * kBlock;
}

LinuxResources Changed(const LinuxResources& before, const LinuxResources& change) {
  LinuxResources result = before;
  const auto take = [](auto& field, const auto& wanted) {
    if (wanted != std::remove_cvref_t<decltype(wanted)>{}) field = wanted;
  };
  take(result.cpu_period, change.cpu_period);
  take(result.cpu_quota, change.cpu_quota);
  take(result.cpu_shares, change.cpu_shares);
  take(result.cpuset_cpus, change.cpuset_cpus);
  take(result.cpuset_mems, change.cpuset_mems);
  take(result.memory_limit_bytes, change.memory_limit_bytes);
  take(result.memory_swap_limit_bytes, change.memory_swap_limit_bytes);
  // The limit of memory and swap together moves with the memory's, unless it is given itself.
  if (change.memory_limit_bytes > 0 && change.memory_swap_limit_bytes == 0 && before.memory_swap_limit_bytes > 0) {
    const std::int64_t swap = std::max<std::int64_t>(0, before.memory_swap_limit_bytes - before.memory_limit_bytes);
    result.memory_swap_limit_bytes = change.memory_limit_bytes + swap;
  }
  for (const auto& [name, value] : change.unified) result.unified[name] = value;
  for (const auto& [size, limit] : change.hugepage_limits) result.hugepage_limits[size] = limit;
  return result;
}

}  // namespace husk::sandbox
