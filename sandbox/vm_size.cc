#include "sandbox/vm_size.h"

#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace husk::sandbox {
namespace {

constexpr std::uint64_t kMemoryStep = std::uint64_t{2} << 20;

std::uint64_t RoundUp(std::uint64_t bytes) {
  return (bytes + kMemoryStep - 1) / kMemoryStep * kMemoryStep;
}

std::uint64_t NotNegative(std::int64_t value) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, value));
}

// In thousandths, rounded up: sums of fractions stay exact enough.
std::uint64_t MilliCpus(const LinuxResources& resources) {
  if (resources.cpu_quota <= 0 || resources.cpu_period <= 0) return 0;
  const auto quota = static_cast<std::uint64_t>(std::min(resources.cpu_quota, std::int64_t{1} << 50));
  const auto period = static_cast<std::uint64_t>(resources.cpu_period);
  return (quota * 1000 + period - 1) / period;
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
  if (options.default_memory_bytes == 0 || options.default_memory_bytes > options.maximum_memory_bytes) {
    return absl::InvalidArgumentError("the VMs' default memory is 0 or more than their maximum");
  }
  if (options.default_vcpus == 0 || options.default_vcpus > options.maximum_vcpus) {
    return absl::InvalidArgumentError("the VMs' default number of CPUs is 0 or more than their maximum");
  }
  return options;
}

VmSize SizeVm(const RuntimeOptions& options, const LinuxResources& resources, const LinuxResources& overhead) {
  VmSize size{.vcpus = options.default_vcpus,
              .maximum_vcpus = options.maximum_vcpus,
              .memory_bytes = options.default_memory_bytes,
              .maximum_memory_bytes = options.maximum_memory_bytes};
  if (resources.memory_limit_bytes > 0) {
    const std::uint64_t announced =
        NotNegative(resources.memory_limit_bytes) + NotNegative(overhead.memory_limit_bytes);
    size.memory_bytes = std::max(size.memory_bytes, RoundUp(std::min(announced, size.maximum_memory_bytes)));
  }
  if (const std::uint64_t milli = MilliCpus(resources); milli > 0) {
    const std::uint64_t announced = (milli + MilliCpus(overhead) + 999) / 1000;
    size.vcpus = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(announced, size.vcpus, size.maximum_vcpus));
  }
  return size;
}

}  // namespace husk::sandbox
