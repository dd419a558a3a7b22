#include "sandbox/stats_history.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace husk::sandbox {
namespace {

using Figure = std::optional<std::uint64_t>;

constexpr std::int64_t kSecond = 1'000'000'000;
// No counter of bytes or events comes so far; 2^64-1 is what comes of errors.
constexpr std::uint64_t kAbsurdCount = std::uint64_t{1} << 62;
constexpr std::uint64_t kMaximumProcesses = std::uint64_t{1} << 22;  // the kernel's own limit
constexpr std::size_t kMaximumInterfaces = 64;
constexpr std::size_t kMaximumName = 15;  // of an interface, the kernel's own limit
constexpr std::size_t kMaximumVolumes = 1024;

// Guests' clocks and processors' counts are not the host's to the nanosecond.
constexpr std::uint64_t kSlack = 1'000'000'000;

struct Limits {
  std::uint64_t elapsed = 0;  // nanoseconds since the pod was made
  std::uint64_t cpu = 0;      // nanoseconds of processors in that time
  Figure host_cpu;
  std::uint64_t memory = 0;
};

Limits LimitsOf(const StatsSample& sample, const StatsBounds& bounds) {
  const auto elapsed = static_cast<std::uint64_t>(std::max<std::int64_t>(0, sample.timestamp - bounds.created_at));
  return {.elapsed = elapsed + kSlack,
          .cpu = (elapsed + kSlack) * bounds.vcpus,
          .host_cpu = sample.host.cpu_nanoseconds,
          .memory = bounds.memory_bytes};
}

// What is there, unless it is more than can be.
Figure AtMost(bool present, std::uint64_t value, std::uint64_t limit) {
  return present && value <= limit ? Figure(value) : std::nullopt;
}

// A counter never runs backwards, and one that says nothing stays where it was.
Figure Grow(const Figure& before, const Figure& now) {
  if (!before || !now) return now ? now : before;
  return std::max(*before, *now);
}

Figure Cpu(const Figure& before, bool present, std::uint64_t value, const Limits& limits) {
  if (!present) return before;
  if (value <= limits.cpu) return Grow(before, value);
  return Grow(before, limits.host_cpu ? Figure(std::min(*limits.host_cpu, limits.cpu)) : std::nullopt);
}

double Percent(double value) {
  return std::isfinite(value) ? std::clamp(value, 0.0, 100.0) : 0;
}

PressureShare Share(const PressureShare& before, const agent::v1::PressureShare& now) {
  return {.average10 = Percent(now.average10()),
          .average60 = Percent(now.average60()),
          .average300 = Percent(now.average300()),
          .total_nanoseconds = std::max(before.total_nanoseconds, now.total_nanoseconds())};
}

template <typename Message>
std::optional<Pressure> PressureOf(const std::optional<Pressure>& before, const Message& now, const Limits& limits) {
  if (!now.has_pressure()) return before;
  const agent::v1::Pressure& said = now.pressure();
  if (std::max(said.some().total_nanoseconds(), said.full().total_nanoseconds()) > limits.elapsed) return before;
  const Pressure last = before.value_or(Pressure());
  return Pressure{.some = Share(last.some, said.some()), .full = Share(last.full, said.full())};
}

CpuFigures CpuOf(const CpuFigures& before, const agent::v1::CpuStats& now, const Limits& limits) {
  CpuFigures cpu;
  cpu.usage_nanoseconds = Cpu(before.usage_nanoseconds, now.has_usage_nanoseconds(), now.usage_nanoseconds(), limits);
  cpu.user_nanoseconds = Cpu(before.user_nanoseconds, now.has_user_nanoseconds(), now.user_nanoseconds(), limits);
  cpu.system_nanoseconds =
      Cpu(before.system_nanoseconds, now.has_system_nanoseconds(), now.system_nanoseconds(), limits);
  cpu.periods = Grow(before.periods, AtMost(now.has_periods(), now.periods(), kAbsurdCount));
  cpu.throttled_periods =
      Grow(before.throttled_periods, AtMost(now.has_throttled_periods(), now.throttled_periods(), kAbsurdCount));
  // Each processor's share of the cgroup waits by itself.
  cpu.throttled_nanoseconds = Grow(before.throttled_nanoseconds,
                                   AtMost(now.has_throttled_nanoseconds(), now.throttled_nanoseconds(), limits.cpu));
  cpu.pressure = PressureOf(before.pressure, now, limits);
  return cpu;
}

MemoryFigures MemoryOf(const MemoryFigures& before, const agent::v1::MemoryStats& now, const Limits& limits) {
  MemoryFigures memory;
  memory.usage_bytes = AtMost(now.has_usage_bytes(), now.usage_bytes(), limits.memory);
  if (memory.usage_bytes) {
    memory.working_set_bytes = *memory.usage_bytes - std::min(*memory.usage_bytes, now.inactive_file_bytes());
  }
  memory.resident_bytes = AtMost(now.has_anonymous_bytes(), now.anonymous_bytes(), limits.memory);
  memory.cache_bytes = AtMost(now.has_file_bytes(), now.file_bytes(), limits.memory);
  memory.mapped_file_bytes = AtMost(now.has_mapped_file_bytes(), now.mapped_file_bytes(), limits.memory);
  memory.kernel_bytes = AtMost(now.has_kernel_bytes(), now.kernel_bytes(), limits.memory);
  memory.peak_bytes = Grow(before.peak_bytes, AtMost(now.has_peak_bytes(), now.peak_bytes(), limits.memory));
  memory.swap_bytes = AtMost(now.has_swap_bytes(), now.swap_bytes(), kAbsurdCount);
  memory.swap_limit_bytes = AtMost(now.has_swap_limit_bytes(), now.swap_limit_bytes(), kAbsurdCount);
  memory.page_faults = Grow(before.page_faults, AtMost(now.has_page_faults(), now.page_faults(), kAbsurdCount));
  memory.major_page_faults =
      Grow(before.major_page_faults, AtMost(now.has_major_page_faults(), now.major_page_faults(), kAbsurdCount));
  memory.limit_failures =
      Grow(before.limit_failures, AtMost(now.has_limit_failures(), now.limit_failures(), kAbsurdCount));
  memory.out_of_memory_kills =
      Grow(before.out_of_memory_kills, AtMost(now.has_out_of_memory_kills(), now.out_of_memory_kills(), kAbsurdCount));
  memory.pressure = PressureOf(before.pressure, now, limits);
  return memory;
}

IoFigures IoOf(const IoFigures& before, const agent::v1::IoStats& now, const Limits& limits) {
  IoFigures io;
  io.read_bytes = Grow(before.read_bytes, AtMost(now.has_read_bytes(), now.read_bytes(), kAbsurdCount));
  io.written_bytes = Grow(before.written_bytes, AtMost(now.has_written_bytes(), now.written_bytes(), kAbsurdCount));
  io.reads = Grow(before.reads, AtMost(now.has_reads(), now.reads(), kAbsurdCount));
  io.writes = Grow(before.writes, AtMost(now.has_writes(), now.writes(), kAbsurdCount));
  io.pressure = PressureOf(before.pressure, now, limits);
  return io;
}

CgroupFigures CgroupOf(const CgroupFigures& before, const agent::v1::CgroupStats& now, const Limits& limits) {
  return {.cpu = CpuOf(before.cpu, now.cpu(), limits),
          .memory = MemoryOf(before.memory, now.memory(), limits),
          .io = IoOf(before.io, now.io(), limits),
          .processes = AtMost(now.has_processes(), now.processes(), kMaximumProcesses),
          .threads = AtMost(now.has_threads(), now.threads(), kMaximumProcesses)};
}

std::optional<FileFigures> FilesOf(const agent::v1::FileUsage& usage, std::uint64_t limit, const StatsSample& sample,
                                   const Limits& limits) {
  if (usage.used_bytes() > limit || usage.inodes() > kAbsurdCount) return std::nullopt;
  const auto age = static_cast<std::int64_t>(std::min(usage.age_nanoseconds(), limits.elapsed));
  return FileFigures{.timestamp = sample.timestamp - age, .used_bytes = usage.used_bytes(), .inodes = usage.inodes()};
}

// What the kernel allows in one, and can be printed.
bool IsInterfaceName(const std::string& name) {
  return !name.empty() && name.size() <= kMaximumName &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7f && c != '/'; });
}

// The host's figures, where they say anything: a VM that runs uses something of both.
void PreferHost(const HostUsage& host, const CgroupFigures& before, CgroupFigures& pod) {
  if (host.cpu_nanoseconds.value_or(0) > 0) {
    pod.cpu.usage_nanoseconds = Grow(before.cpu.usage_nanoseconds, host.cpu_nanoseconds);
    // Of what runs in the guest; these would not add up to the sum.
    pod.cpu.user_nanoseconds.reset();
    pod.cpu.system_nanoseconds.reset();
  }
  if (host.memory_bytes.value_or(0) == 0) return;
  const std::uint64_t usage = *host.memory_bytes;
  pod.memory.usage_bytes = usage;
  pod.memory.working_set_bytes = usage - std::min(usage, host.inactive_file_bytes.value_or(0));
  if (host.anonymous_bytes) pod.memory.resident_bytes = host.anonymous_bytes;
  if (host.page_faults) pod.memory.page_faults = Grow(before.memory.page_faults, host.page_faults);
  if (host.major_page_faults) {
    pod.memory.major_page_faults = Grow(before.memory.major_page_faults, host.major_page_faults);
  }
}

}  // namespace

Figure CpuRate::Add(std::int64_t timestamp, const Figure& usage_nanoseconds) {
  if (!usage_nanoseconds) return rate_;
  const std::int64_t elapsed = timestamp - timestamp_;
  // The host's clock may be set back: begin anew.
  if (usage_ && elapsed >= 0 && elapsed < kSecond) return rate_;
  if (usage_ && elapsed >= kSecond && *usage_nanoseconds >= *usage_) {
    const double used = static_cast<double>(*usage_nanoseconds - *usage_);
    rate_ = static_cast<std::uint64_t>(used * static_cast<double>(kSecond) / static_cast<double>(elapsed));
  } else {
    rate_.reset();
  }
  timestamp_ = timestamp;
  usage_ = usage_nanoseconds;
  return rate_;
}

void StatsHistory::Add(const StatsSample& sample, const StatsBounds& bounds) {
  figures_.timestamp = sample.timestamp;
  AddContainers(sample, bounds);
  AddVolumes(sample, bounds);
  AddInterfaces(sample.guest.guest());
  AddPod(sample, bounds);
}

void StatsHistory::AddContainers(const StatsSample& sample, const StatsBounds& bounds) {
  const Limits limits = LimitsOf(sample, bounds);
  std::map<std::string, ContainerFigures> containers;
  std::map<std::string, CpuRate> rates;
  for (const agent::v1::ContainerStats& said : sample.guest.containers()) {
    const std::string& id = said.container_id();
    if (!bounds.containers.contains(id) || containers.contains(id)) continue;
    const ContainerFigures before = figures_.containers[id];
    ContainerFigures now;
    now.cgroup = CgroupOf(before.cgroup, said.cgroup(), limits);
    CpuRate& rate = rates[id] = rates_[id];
    now.cgroup.cpu.usage_nano_cores = rate.Add(sample.timestamp, now.cgroup.cpu.usage_nanoseconds);
    if (said.has_writable_layer()) {
      now.writable_layer = FilesOf(said.writable_layer(), bounds.scratch_bytes, sample, limits);
    }
    if (!now.writable_layer) now.writable_layer = before.writable_layer;
    containers[id] = std::move(now);
  }
  // One that the guest does not name this time keeps what is known of it as long as it exists.
  for (auto& [id, before] : figures_.containers) {
    if (!bounds.containers.contains(id)) continue;
    if (containers.try_emplace(id, std::move(before)).second) rates[id] = rates_[id];
  }
  rates[""] = rates_[""];
  figures_.containers = std::move(containers);
  rates_ = std::move(rates);
}

void StatsHistory::AddVolumes(const StatsSample& sample, const StatsBounds& bounds) {
  const Limits limits = LimitsOf(sample, bounds);
  figures_.volumes.clear();
  for (const agent::v1::VolumeStats& said : sample.guest.volumes()) {
    if (!said.has_usage() || figures_.volumes.size() >= kMaximumVolumes) continue;
    const auto usage = FilesOf(said.usage(), std::max(bounds.scratch_bytes, bounds.memory_bytes), sample, limits);
    if (usage) figures_.volumes[said.volume_id()] = *usage;
  }
  const agent::v1::GuestStats& guest = sample.guest.guest();
  figures_.scratch_capacity_bytes =
      AtMost(guest.has_scratch_capacity_bytes(), guest.scratch_capacity_bytes(), bounds.scratch_bytes);
  const Figure total = AtMost(guest.has_memory_total_bytes(), guest.memory_total_bytes(), bounds.memory_bytes);
  const Figure available =
      AtMost(guest.has_memory_available_bytes(), guest.memory_available_bytes(), total.value_or(0));
  figures_.guest_memory_used_bytes = total && available ? Figure(*total - *available) : std::nullopt;
}

void StatsHistory::AddInterfaces(const agent::v1::GuestStats& guest) {
  std::vector<InterfaceFigures> interfaces;
  for (const agent::v1::InterfaceStats& said : guest.interfaces()) {
    if (!IsInterfaceName(said.name()) || interfaces.size() >= kMaximumInterfaces) continue;
    const auto named = [&](const InterfaceFigures& other) { return other.name == said.name(); };
    if (std::any_of(interfaces.begin(), interfaces.end(), named)) continue;
    const auto found = std::find_if(figures_.interfaces.begin(), figures_.interfaces.end(), named);
    InterfaceFigures now = found == figures_.interfaces.end() ? InterfaceFigures{.name = said.name()} : *found;
    const auto grow = [](std::uint64_t& counter, std::uint64_t value) {
      if (value <= kAbsurdCount) counter = std::max(counter, value);
    };
    grow(now.received_bytes, said.received_bytes());
    grow(now.received_packets, said.received_packets());
    grow(now.receive_errors, said.receive_errors());
    grow(now.receive_drops, said.receive_drops());
    grow(now.sent_bytes, said.sent_bytes());
    grow(now.sent_packets, said.sent_packets());
    grow(now.send_errors, said.send_errors());
    grow(now.send_drops, said.send_drops());
    interfaces.push_back(std::move(now));
  }
  figures_.interfaces = std::move(interfaces);
}

void StatsHistory::AddPod(const StatsSample& sample, const StatsBounds& bounds) {
  const CgroupFigures before = figures_.cgroup;
  figures_.cgroup = CgroupOf(before, sample.guest.guest().containers(), LimitsOf(sample, bounds));
  PreferHost(sample.host, before, figures_.cgroup);
  figures_.cgroup.cpu.usage_nano_cores = rates_[""].Add(sample.timestamp, figures_.cgroup.cpu.usage_nanoseconds);
}

}  // namespace husk::sandbox
