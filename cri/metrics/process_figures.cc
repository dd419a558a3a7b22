#include "cri/metrics/process_figures.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

#include "absl/strings/str_split.h"
#include "cri/metrics/family.h"

namespace husk::cri {

namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

// Of /proc/self/stat, from the third field on, because the second may have spaces in it; empty if it cannot be read.
std::vector<std::string> StatFields() {
  std::ifstream file("/proc/self/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos || name_end + 2 >= text.size()) return {};
  return absl::StrSplit(text.substr(name_end + 2), ' ');
}

double BootTime() {
  std::ifstream file("/proc/stat");
  std::string word;
  while (file >> word) {
    double seconds = 0;
    if (word == "btime" && file >> seconds) return seconds;
  }
  return 0;
}

void AddStat(std::vector<MetricFamily>* families) {
  // proc(5) counts from 1, and our fields begin with its third.
  constexpr std::size_t kUserTicks = 14 - 3;
  constexpr std::size_t kSystemTicks = 15 - 3;
  constexpr std::size_t kThreads = 20 - 3;
  constexpr std::size_t kStartTicks = 22 - 3;
  constexpr std::size_t kVirtualBytes = 23 - 3;
  constexpr std::size_t kResidentPages = 24 - 3;
  const std::vector<std::string> fields = StatFields();
  if (fields.size() <= kResidentPages) return;
  const auto number = [&](std::size_t field) { return std::strtod(fields[field].c_str(), nullptr); };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  AddOne(families, "process_cpu_seconds_total", "User and system time of huskd itself.", MetricType::Counter,
         (number(kUserTicks) + number(kSystemTicks)) / ticks);
  AddOne(families, "process_threads", "huskd's threads.", MetricType::Gauge, number(kThreads));
  AddOne(families, "process_start_time_seconds", "When huskd was started, in seconds since 1970.", MetricType::Gauge,
         BootTime() + number(kStartTicks) / ticks);
  AddOne(families, "process_virtual_memory_bytes", "huskd's address space.", MetricType::Gauge, number(kVirtualBytes));
  AddOne(families, "process_resident_memory_bytes", "huskd's memory.", MetricType::Gauge,
         number(kResidentPages) * static_cast<double>(sysconf(_SC_PAGESIZE)));
}

}  // namespace

void AddProcessFigures(std::vector<MetricFamily>* families) {
  AddStat(families);
  std::error_code error;
  const std::filesystem::directory_iterator descriptors("/proc/self/fd", error);
  if (!error) {
    AddOne(families, "process_open_fds", "huskd's open descriptors.", MetricType::Gauge,
           static_cast<double>(std::distance(begin(descriptors), end(descriptors))));
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    AddOne(families, "process_max_fds", "How many descriptors huskd may have.", MetricType::Gauge,
           static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace husk::cri
