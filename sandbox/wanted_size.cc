#include "sandbox/wanted_size.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

constexpr std::uint64_t kMost = std::uint64_t{1} << 60;
constexpr std::uint64_t kMemoryStep = std::uint64_t{2} << 20;
constexpr std::uint64_t kPlugStep = std::uint64_t{4} << 20;
constexpr std::uint64_t kPeriod = 100'000;  // microseconds

std::uint64_t RoundUp(std::uint64_t bytes, std::uint64_t step) {
  return (bytes + step - 1) / step * step;
}

// Of the containers.
struct Limits {
  std::uint64_t memory_bytes = 0;
  std::uint64_t milli_cpus = 0;
  bool some_without_memory = false;
  bool some_without_cpu = false;
};

Limits SumOf(const std::vector<LinuxResources>& containers) {
  Limits sum;
  for (const LinuxResources& container : containers) {
    const std::uint64_t memory = MemoryLimit(container);
    const std::uint64_t milli = MilliCpus(container);
    sum.memory_bytes = std::min(sum.memory_bytes + std::min(memory, kMost), kMost);
    sum.milli_cpus = std::min(sum.milli_cpus + std::min(milli, kMost), kMost);
    sum.some_without_memory = sum.some_without_memory || memory == 0;
    sum.some_without_cpu = sum.some_without_cpu || milli == 0;
  }
  return sum;
}

std::uint64_t MemoryWanted(const RuntimeOptions& options, const PodNeeds& needs, const Limits& sum,
                           std::uint64_t huge_page_bytes) {
  const std::uint64_t limits =
      std::min(std::max(sum.memory_bytes, MemoryLimit(needs.resources)), options.maximum_memory_bytes);
  std::uint64_t bytes = options.default_memory_bytes;
  if (limits > 0) {
    bytes = std::max(bytes, MemoryForLimits(limits, needs.overhead));
    // It has what it would have in a VM of its own.
    if (sum.some_without_memory) bytes = std::max(bytes, options.default_memory_bytes + limits + limits / 64);
  }
  if (sum.some_without_memory)
    bytes = std::max(bytes, std::min(needs.demanded_memory_bytes, options.unlimited_memory_bytes));
  const std::uint64_t room = options.maximum_memory_bytes - std::min(options.maximum_memory_bytes, huge_page_bytes);
  return RoundUp(std::min(bytes, std::max(options.default_memory_bytes, room)), kMemoryStep);
}

std::uint32_t VcpusWanted(const RuntimeOptions& options, const PodNeeds& needs, const Limits& sum) {
  const std::uint64_t share = std::max(options.default_vcpus, options.unlimited_vcpus);
  const std::uint64_t milli = std::max(sum.milli_cpus, MilliCpus(needs.resources));
  std::uint64_t count = share;
  if (milli > 0) {
    // The overhead's CPU is for QEMU's own threads: a vCPU for it would be the containers'.
    count = (milli + 999) / 1000;
    if (sum.some_without_cpu) count = std::max(count, share);
  }
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(count, options.default_vcpus, options.maximum_vcpus));
}

}  // namespace

WantedSize SizeWanted(const RuntimeOptions& options, const PodNeeds& needs) {
  const Limits sum = SumOf(needs.containers);
  WantedSize wanted;
  wanted.vcpus = VcpusWanted(options, needs, sum);
  wanted.huge_page_bytes = MemoryForHugePages(needs.containers);
  wanted.memory_bytes = MemoryWanted(options, needs, sum, wanted.huge_page_bytes);
  for (const LinuxResources& container : needs.containers) {
    wanted.unmovable = wanted.unmovable || WantsGiganticPages(container);
  }
  return wanted;
}

bool HasMemoryOnDemand(const PodNeeds& needs) {
  return SumOf(needs.containers).some_without_memory;
}

bool CanDemandMore(const RuntimeOptions& options, const PodNeeds& needs) {
  if (!HasMemoryOnDemand(needs)) return false;
  PodNeeds most = needs;
  most.demanded_memory_bytes = options.unlimited_memory_bytes;
  return SizeWanted(options, most).memory_bytes > SizeWanted(options, needs).memory_bytes;
}

std::uint64_t PluggedFor(const WantedSize& wanted, std::uint64_t boot_bytes, std::uint64_t maximum_bytes) {
  const std::uint64_t more = wanted.memory_bytes - std::min(wanted.memory_bytes, boot_bytes);
  const std::uint64_t taken = boot_bytes + wanted.huge_page_bytes;
  const std::uint64_t room = maximum_bytes - std::min(maximum_bytes, taken);
  return std::min(RoundUp(more, kPlugStep), room / kPlugStep * kPlugStep) + wanted.huge_page_bytes;
}

LinuxResources AnnouncedOrMore(const PodNeeds& needs) {
  LinuxResources result = needs.resources;
  const Limits sum = SumOf(needs.containers);
  if (const std::uint64_t announced = MilliCpus(result); announced > 0 && sum.milli_cpus > announced) {
    result.cpu_period = kPeriod;
    result.cpu_quota = static_cast<std::int64_t>(std::min(sum.milli_cpus, kMost / kPeriod) * (kPeriod / 1000));
  }
  return result;
}

LinuxResources MoreOf(const LinuxResources& before, const LinuxResources& after) {
  LinuxResources most = after;
  const bool any_memory = MemoryLimit(before) == 0 || MemoryLimit(after) == 0;
  most.memory_limit_bytes = any_memory ? 0 : std::max(before.memory_limit_bytes, after.memory_limit_bytes);
  const std::uint64_t had = MilliCpus(before);
  if (had == 0 || (MilliCpus(after) != 0 && had > MilliCpus(after))) {
    most.cpu_quota = before.cpu_quota;
    most.cpu_period = before.cpu_period;
  }
  for (const auto& [size, bytes] : before.hugepage_limits) {
    std::uint64_t& larger = most.hugepage_limits[size];
    larger = std::max(larger, bytes);
  }
  return most;
}

}  // namespace husk::sandbox
