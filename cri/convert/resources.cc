#include "cri/convert/resources.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cri/convert/common.h"

namespace husk::cri {
namespace {

// The kernel's own ranges, in microseconds.
constexpr std::int64_t kShortestPeriod = 1000;
constexpr std::int64_t kLongestPeriod = 1'000'000;
constexpr std::int64_t kShortestQuota = 1000;
constexpr std::int64_t kLongestQuota = (std::int64_t{1} << 44) - 1;
constexpr std::int64_t kFewestShares = 2;
constexpr std::int64_t kMostShares = 262'144;
constexpr std::int64_t kLowestScore = -1000;
constexpr std::int64_t kHighestScore = 1000;
// Less does not hold crun's own first steps in the container: it would only fail to start, without a word why.
constexpr std::int64_t kLeastMemory = std::int64_t{512} << 10;
constexpr std::uint32_t kHighestCpu = 8191;
constexpr std::uint64_t kMostHugePages = std::uint64_t{1} << 50;  // bytes

Status CheckRange(const std::string& field, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return FieldError(field, absl::StrCat(value, " is not from ", least, " to ", most));
}

Status CheckCpu(const sandbox::LinuxResources& resources, const std::string& field) {
  if (resources.cpu_period != 0) {
    HUSK_RETURN_IF_ERROR(CheckRange(field + ".cpu_period", resources.cpu_period, kShortestPeriod, kLongestPeriod));
  }
  // -1 lifts it.
  if (resources.cpu_quota != 0 && resources.cpu_quota != -1) {
    HUSK_RETURN_IF_ERROR(CheckRange(field + ".cpu_quota", resources.cpu_quota, kShortestQuota, kLongestQuota));
  }
  if (resources.cpu_shares == 0) return absl::OkStatus();
  return CheckRange(field + ".cpu_shares", resources.cpu_shares, kFewestShares, kMostShares);
}

Status CheckMemory(const sandbox::LinuxResources& resources, const std::string& field) {
  const std::int64_t limit = resources.memory_limit_bytes;
  if (limit < 0) return FieldError(field + ".memory_limit_in_bytes", "negative");
  if (limit > 0 && limit < kLeastMemory) {
    return FieldError(field + ".memory_limit_in_bytes",
                      absl::StrCat(limit, " is less than ", kLeastMemory, ", which no container can start with"));
  }
  const std::int64_t swap = resources.memory_swap_limit_bytes;
  if (swap < -1) return FieldError(field + ".memory_swap_limit_in_bytes", "less than -1, which means no limit");
  if (swap > 0 && limit > 0 && swap < limit) {
    return FieldError(field + ".memory_swap_limit_in_bytes",
                      absl::StrCat(swap, " is less than memory_limit_in_bytes, which it includes"));
  }
  return CheckRange(field + ".oom_score_adj", resources.oom_score_adjustment, kLowestScore, kHighestScore);
}

bool IsNumberList(const std::string& list) {
  const auto is_number = [](absl::string_view text, std::uint32_t* number) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
           absl::SimpleAtoi(text, number) && *number <= kHighestCpu;
  };
  for (const absl::string_view range : absl::StrSplit(list, ',')) {
    const std::vector<absl::string_view> ends = absl::StrSplit(range, '-');
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    if (ends.size() > 2 || !is_number(ends.front(), &first) || !is_number(ends.back(), &last) || first > last) {
      return false;
    }
  }
  return true;
}

Status CheckList(const std::string& field, const std::string& list) {
  if (list.empty() || IsNumberList(list)) return absl::OkStatus();
  return FieldError(field, absl::StrCat("\"", list, "\" is no list of numbers such as 0-3,5"));
}

// A file of the container's own cgroup, and a controller's: those of the core (cgroup.procs, cgroup.subtree_control)
// move processes and are not limits.
Status CheckUnified(const std::string& field, const sandbox::StringMap& unified) {
  for (const auto& [name, value] : unified) {
    const auto harmless = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_';
    };
    const std::size_t dot = name.find('.');
    if (dot == 0 || dot == std::string::npos || !std::all_of(name.begin(), name.end(), harmless) ||
        absl::StrContains(name, "..") || absl::StartsWith(name, "cgroup.")) {
      return FieldError(absl::StrCat(field, ".unified[", name, "]"), "no controller's file, such as memory.high");
    }
    if (value.empty() || value.find(char{0}) != std::string::npos) {
      return FieldError(absl::StrCat(field, ".unified[", name, "]"), "no value for it");
    }
  }
  return absl::OkStatus();
}

// Of "2MB", as the kubelet writes it, or "2Mi", as it is called in Kubernetes' resources. 0 for what is no such size.
std::uint64_t PageBytes(absl::string_view text) {
  constexpr std::size_t kMostDigits = 7;
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  std::uint64_t number = 0;
  if (digits == 0 || digits > kMostDigits || !absl::SimpleAtoi(text.substr(0, digits), &number)) return 0;
  const absl::string_view unit = text.substr(digits);
  std::uint64_t bytes = 0;
  if (unit == "KB" || unit == "Ki") bytes = number << 10;
  if (unit == "MB" || unit == "Mi") bytes = number << 20;
  if (unit == "GB" || unit == "Gi") bytes = number << 30;
  const bool power_of_two = (bytes & (bytes - 1)) == 0;
  return power_of_two ? bytes : 0;
}

// In the kernel's words.
std::string PageName(std::uint64_t bytes) {
  if (bytes >= (std::uint64_t{1} << 30)) return absl::StrCat(bytes >> 30, "GB");
  if (bytes >= (std::uint64_t{1} << 20)) return absl::StrCat(bytes >> 20, "MB");
  return absl::StrCat(bytes >> 10, "KB");
}

// The kubelet sends a limit of 0 for each page size of the host that the container does not want.
Status TakeHugePages(const api::LinuxContainerResources& resources, const std::string& field,
                     sandbox::LinuxResources& result) {
  for (const api::HugepageLimit& limit : resources.hugepage_limits()) {
    const std::string name = absl::StrCat(field, ".hugepage_limits[", limit.page_size(), "]");
    const std::uint64_t page = PageBytes(limit.page_size());
    if (page == 0) return FieldError(name, "no size of a huge page, such as 2MB or 1GB");
    if (limit.limit() > kMostHugePages) {
      return FieldError(name, absl::StrCat(limit.limit(), " is more than ", kMostHugePages, ", which no machine has"));
    }
    if (limit.limit() % page != 0) return FieldError(name, absl::StrCat(limit.limit(), " is no multiple of the size"));
    if (!result.hugepage_limits.emplace(PageName(page), limit.limit()).second) {
      return FieldError(name, "the list has that size twice");
    }
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<sandbox::LinuxResources> ResourcesFromProto(const api::LinuxContainerResources& resources,
                                                     const std::string& field) {
  sandbox::LinuxResources result;
  result.cpu_period = resources.cpu_period();
  result.cpu_quota = resources.cpu_quota();
  result.cpu_shares = resources.cpu_shares();
  result.memory_limit_bytes = resources.memory_limit_in_bytes();
  result.oom_score_adjustment = resources.oom_score_adj();
  result.cpuset_cpus = resources.cpuset_cpus();
  result.cpuset_mems = resources.cpuset_mems();
  result.unified = FromProtoMap(resources.unified());
  result.memory_swap_limit_bytes = resources.memory_swap_limit_in_bytes();
  HUSK_RETURN_IF_ERROR(CheckCpu(result, field));
  HUSK_RETURN_IF_ERROR(CheckMemory(result, field));
  HUSK_RETURN_IF_ERROR(CheckList(field + ".cpuset_cpus", result.cpuset_cpus));
  HUSK_RETURN_IF_ERROR(CheckList(field + ".cpuset_mems", result.cpuset_mems));
  HUSK_RETURN_IF_ERROR(CheckUnified(field, result.unified));
  HUSK_RETURN_IF_ERROR(TakeHugePages(resources, field, result));
  return result;
}

void ResourcesToProto(const sandbox::LinuxResources& resources, api::LinuxContainerResources* out) {
  out->set_cpu_period(resources.cpu_period);
  out->set_cpu_quota(resources.cpu_quota);
  out->set_cpu_shares(resources.cpu_shares);
  out->set_memory_limit_in_bytes(resources.memory_limit_bytes);
  out->set_oom_score_adj(resources.oom_score_adjustment);
  out->set_cpuset_cpus(resources.cpuset_cpus);
  out->set_cpuset_mems(resources.cpuset_mems);
  ToProtoMap(resources.unified, out->mutable_unified());
  out->set_memory_swap_limit_in_bytes(resources.memory_swap_limit_bytes);
  for (const auto& [size, bytes] : resources.hugepage_limits) {
    api::HugepageLimit* const limit = out->add_hugepage_limits();
    limit->set_page_size(size);
    limit->set_limit(bytes);
  }
}

}  // namespace husk::cri
