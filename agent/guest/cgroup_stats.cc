#include "agent/guest/cgroup_stats.h"

#include <array>
#include <cstdint>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "agent/guest/cgroup.h"
#include "agent/guest/files.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

constexpr std::size_t kMaximumText = std::size_t{1} << 16;
constexpr std::uint64_t kNanosecondsPerMicrosecond = 1000;

std::optional<std::string> Text(const std::string& path) {
  auto text = ReadFile(path, kMaximumText);
  if (!text.ok()) return std::nullopt;
  return *std::move(text);
}

// A file that is one number. "max" is none.
std::optional<std::uint64_t> Number(const std::string& path) {
  const auto text = Text(path);
  std::uint64_t number = 0;
  if (!text || !ParseNumber(Trim(*text), number)) return std::nullopt;
  return number;
}

// Lines of "name number".
std::map<std::string, std::uint64_t, std::less<>> Numbers(const std::string& path) {
  std::map<std::string, std::uint64_t, std::less<>> numbers;
  const auto text = Text(path);
  if (!text) return numbers;
  for (const std::string_view line : SplitWords(*text, '\n')) {
    const std::vector<std::string_view> words = SplitWords(line);
    std::uint64_t number = 0;
    if (words.size() == 2 && ParseNumber(words[1], number)) numbers.emplace(words[0], number);
  }
  return numbers;
}

// Calls a setter of `message` if there is a value for it.
template <typename Message>
void Set(Message& message, void (Message::*set)(std::uint64_t), const std::optional<std::uint64_t>& value,
         std::uint64_t factor = 1) {
  if (value) (message.*set)(*value * factor);
}

// "avg10=1.25": 1.25. The kernel writes two digits after the point, in every locale.
bool ParseDecimal(std::string_view text, double& value) {
  const std::vector<std::string_view> parts = Split(text, '.');
  std::uint64_t whole = 0;
  std::uint64_t hundredths = 0;
  if (parts.size() != 2 || parts[1].size() != 2) return false;
  if (!ParseNumber(parts[0], whole) || !ParseNumber(parts[1], hundredths)) return false;
  value = static_cast<double>(whole) + static_cast<double>(hundredths) / 100;
  return true;
}

v1::PressureShare ParseShare(const std::vector<std::string_view>& words) {
  v1::PressureShare share;
  for (const std::string_view word : words) {
    const std::size_t equals = word.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view name = word.substr(0, equals);
    const std::string_view text = word.substr(equals + 1);
    double average = 0;
    std::uint64_t microseconds = 0;
    if (name == "total" && ParseNumber(text, microseconds)) {
      share.set_total_nanoseconds(microseconds * kNanosecondsPerMicrosecond);
    } else if (ParseDecimal(text, average)) {
      if (name == "avg10") share.set_average10(average);
      if (name == "avg60") share.set_average60(average);
      if (name == "avg300") share.set_average300(average);
    }
  }
  return share;
}

template <typename Message>
void SetPressure(const std::string& path, Message& message) {
  // Reading it fails where the kernel does not measure pressure.
  const auto text = Text(path);
  if (text && !text->empty()) *message.mutable_pressure() = ParsePressure(*text);
}

void ReadCpu(const std::string& cgroup, v1::CpuStats& cpu) {
  const auto numbers = Numbers(cgroup + "/cpu.stat");
  const auto set = [&](void (v1::CpuStats::*setter)(std::uint64_t), std::string_view name, std::uint64_t factor) {
    if (const auto found = numbers.find(name); found != numbers.end()) Set(cpu, setter, found->second, factor);
  };
  set(&v1::CpuStats::set_usage_nanoseconds, "usage_usec", kNanosecondsPerMicrosecond);
  set(&v1::CpuStats::set_user_nanoseconds, "user_usec", kNanosecondsPerMicrosecond);
  set(&v1::CpuStats::set_system_nanoseconds, "system_usec", kNanosecondsPerMicrosecond);
  set(&v1::CpuStats::set_periods, "nr_periods", 1);
  set(&v1::CpuStats::set_throttled_periods, "nr_throttled", 1);
  set(&v1::CpuStats::set_throttled_nanoseconds, "throttled_usec", kNanosecondsPerMicrosecond);
  SetPressure(cgroup + "/cpu.pressure", cpu);
}

void ReadMemory(const std::string& cgroup, v1::MemoryStats& memory) {
  Set(memory, &v1::MemoryStats::set_usage_bytes, Number(cgroup + "/memory.current"));
  Set(memory, &v1::MemoryStats::set_limit_bytes, Number(cgroup + "/memory.max"));
  Set(memory, &v1::MemoryStats::set_peak_bytes, Number(cgroup + "/memory.peak"));
  Set(memory, &v1::MemoryStats::set_swap_bytes, Number(cgroup + "/memory.swap.current"));
  Set(memory, &v1::MemoryStats::set_swap_limit_bytes, Number(cgroup + "/memory.swap.max"));
  auto numbers = Numbers(cgroup + "/memory.stat");
  const auto set = [&](void (v1::MemoryStats::*setter)(std::uint64_t), std::string_view name) {
    if (const auto found = numbers.find(name); found != numbers.end()) Set(memory, setter, found->second);
  };
  set(&v1::MemoryStats::set_inactive_file_bytes, "inactive_file");
  set(&v1::MemoryStats::set_anonymous_bytes, "anon");
  set(&v1::MemoryStats::set_file_bytes, "file");
  set(&v1::MemoryStats::set_mapped_file_bytes, "file_mapped");
  set(&v1::MemoryStats::set_kernel_bytes, "kernel");
  set(&v1::MemoryStats::set_page_faults, "pgfault");
  set(&v1::MemoryStats::set_major_page_faults, "pgmajfault");
  numbers = Numbers(cgroup + "/memory.events");
  set(&v1::MemoryStats::set_limit_failures, "max");
  set(&v1::MemoryStats::set_out_of_memory_kills, "oom_kill");
  SetPressure(cgroup + "/memory.pressure", memory);
}

// Lines of "major:minor rbytes=1 wbytes=2 rios=3 wios=4 ...".
void ReadIo(const std::string& cgroup, v1::IoStats& io) {
  SetPressure(cgroup + "/io.pressure", io);
  const auto text = Text(cgroup + "/io.stat");
  if (!text) return;
  std::map<std::string_view, std::uint64_t> sums = {{"rbytes", 0}, {"wbytes", 0}, {"rios", 0}, {"wios", 0}};
  for (const std::string_view word : SplitWords(*text, ' ')) {
    for (const std::string_view part : SplitWords(word, '\n')) {
      const std::size_t equals = part.find('=');
      std::uint64_t number = 0;
      if (equals == std::string_view::npos || !ParseNumber(part.substr(equals + 1), number)) continue;
      if (const auto sum = sums.find(part.substr(0, equals)); sum != sums.end()) sum->second += number;
    }
  }
  io.set_read_bytes(sums["rbytes"]);
  io.set_written_bytes(sums["wbytes"]);
  io.set_reads(sums["rios"]);
  io.set_writes(sums["wios"]);
}

}  // namespace

v1::Pressure ParsePressure(std::string_view text) {
  v1::Pressure pressure;
  for (const std::string_view line : SplitWords(text, '\n')) {
    const std::vector<std::string_view> words = SplitWords(line);
    if (words.empty()) continue;
    if (words[0] == "some") *pressure.mutable_some() = ParseShare(words);
    if (words[0] == "full") *pressure.mutable_full() = ParseShare(words);
  }
  return pressure;
}

v1::CgroupStats ReadCgroupStats(const std::string& cgroup) {
  v1::CgroupStats stats;
  ReadCpu(cgroup, *stats.mutable_cpu());
  ReadMemory(cgroup, *stats.mutable_memory());
  ReadIo(cgroup, *stats.mutable_io());
  stats.set_processes(CgroupProcesses(cgroup).size());
  Set(stats, &v1::CgroupStats::set_threads, Number(cgroup + "/pids.current"));
  return stats;
}

std::vector<v1::InterfaceStats> ParseInterfaces(std::string_view text) {
  constexpr std::size_t kColumns = 16;
  std::vector<v1::InterfaceStats> interfaces;
  for (const std::string_view line : SplitWords(text, '\n')) {
    const std::size_t colon = line.rfind(':');
    if (colon == std::string_view::npos) continue;
    const std::string_view name = Trim(line.substr(0, colon));
    const std::vector<std::string_view> words = SplitWords(line.substr(colon + 1));
    std::array<std::uint64_t, kColumns> numbers{};
    bool readable = words.size() == kColumns && name != "lo";
    for (std::size_t i = 0; readable && i < kColumns; ++i) readable = ParseNumber(words[i], numbers.at(i));
    if (!readable) continue;
    v1::InterfaceStats& interface = interfaces.emplace_back();
    interface.set_name(std::string(name));
    interface.set_received_bytes(numbers[0]);
    interface.set_received_packets(numbers[1]);
    interface.set_receive_errors(numbers[2]);
    interface.set_receive_drops(numbers[3]);
    interface.set_sent_bytes(numbers[8]);
    interface.set_sent_packets(numbers[9]);
    interface.set_send_errors(numbers[10]);
    interface.set_send_drops(numbers[11]);
  }
  return interfaces;
}

}  // namespace husk::agent
