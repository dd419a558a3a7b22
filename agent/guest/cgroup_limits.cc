#include "agent/guest/cgroup_limits.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"
#include "agent/guest/files.h"
#include "agent/guest/oci_json.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kNoLimit = "max";
constexpr std::int64_t kLeastShares = 2;
constexpr std::int64_t kMostShares = 262'144;
constexpr std::int64_t kMostWeight = 10'000;

struct Write {
  std::string file;
  std::string value;
  bool optional = false;  // not every kernel has the file
};

Status Refused(const std::string& name, const Json& value) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": ", Printable(value.dump(-1, ' ', true, Json::error_handler_t::replace), 80)));
}

// Shares of cgroup v1, from 2 to 262144, are weights of v2, from 1 to 10000, in proportion: as crun takes those that a
// container is started with.
std::int64_t WeightOf(std::int64_t shares) {
  shares = std::clamp(shares, kLeastShares, kMostShares);
  return 1 + (shares - kLeastShares) * (kMostWeight - 1) / (kMostShares - kLeastShares);
}

std::string LimitOf(std::int64_t number) {
  return number < 0 ? std::string(kNoLimit) : absl::StrCat(number);
}

class Plan {
 public:
  explicit Plan(const std::string& cgroup) : cgroup_(cgroup) {}

  Status Add(const Json& resources) {
    for (const auto& [name, value] : resources.items()) {
      if (name == "cpu") {
        HUSK_RETURN_IF_ERROR(AddCpu(value));
      } else if (name == "memory") {
        HUSK_RETURN_IF_ERROR(AddMemory(value));
      } else if (name == "unified") {
        HUSK_RETURN_IF_ERROR(AddUnified(value));
      } else if (name == "hugepageLimits") {
        HUSK_RETURN_IF_ERROR(AddHugePages(value));
      } else {
        return absl::InvalidArgumentError(absl::StrCat(Printable(name, 40), ": cannot be changed"));
      }
    }
    return absl::OkStatus();
  }

  [[nodiscard]] const std::vector<Write>& writes() const { return writes_; }

 private:
  // The numbers of an object by the names that it may have.
  static StatusOr<std::vector<std::optional<std::int64_t>>> Numbers(const Json& object, const std::string& where,
                                                                    std::initializer_list<const char*> names,
                                                                    std::initializer_list<const char*> others) {
    if (!object.is_object()) return Refused(where, object);
    std::vector<std::optional<std::int64_t>> numbers(names.size());
    for (const auto& [name, value] : object.items()) {
      const auto* const found = std::find(names.begin(), names.end(), name);
      if (found == names.end() && std::find(others.begin(), others.end(), name) != others.end()) continue;
      const std::string field = absl::StrCat(where, ".", Printable(name, 40));
      if (found == names.end()) return absl::InvalidArgumentError(absl::StrCat(field, ": cannot be changed"));
      if (!value.is_number_integer()) return Refused(field, value);
      numbers[static_cast<std::size_t>(found - names.begin())] = value.get<std::int64_t>();
    }
    return numbers;
  }

  Status AddCpu(const Json& cpu) {
    HUSK_ASSIGN_OR_RETURN(const auto numbers, Numbers(cpu, "cpu", {"shares", "quota", "period"}, {"cpus", "mems"}));
    // 0 shares: none are named.
    if (const auto shares = numbers[0]; shares.value_or(0) != 0) {
      writes_.push_back({.file = "cpu.weight", .value = absl::StrCat(WeightOf(*shares))});
    }
    HUSK_RETURN_IF_ERROR(AddQuota(numbers[1], numbers[2]));
    for (const char* name : {"cpus", "mems"}) {
      const auto list = cpu.find(name);
      if (list == cpu.end()) continue;
      if (!list->is_string()) return Refused(absl::StrCat("cpu.", name), *list);
      writes_.push_back({.file = absl::StrCat("cpuset.", name), .value = list->get<std::string>()});
    }
    return absl::OkStatus();
  }

  // The kernel takes a quota alone, and keeps the period then; a period alone it does not take.
  Status AddQuota(std::optional<std::int64_t> quota, std::optional<std::int64_t> period) {
    if (!quota && !period) return absl::OkStatus();
    std::string value;
    if (quota) {
      value = LimitOf(*quota == 0 ? -1 : *quota);
    } else {
      HUSK_ASSIGN_OR_RETURN(value, ReadFile(cgroup_ + "/cpu.max", 64));
      value = std::string(Split(Trim(value), ' ').front());
    }
    if (period.value_or(0) != 0) absl::StrAppend(&value, " ", *period);
    writes_.push_back({.file = "cpu.max", .value = std::move(value)});
    return absl::OkStatus();
  }

  Status AddMemory(const Json& memory) {
    HUSK_ASSIGN_OR_RETURN(const auto numbers, Numbers(memory, "memory", {"limit", "swap"}, {}));
    const auto [limit, swap] = std::pair(numbers[0], numbers[1]);
    if (limit.value_or(0) != 0) writes_.push_back({.file = "memory.max", .value = LimitOf(*limit)});
    if (swap.value_or(0) == 0) return absl::OkStatus();
    // The OCI's is memory and swap together, the cgroup's swap alone.
    const std::int64_t of_memory = *swap < 0 ? 0 : limit.value_or(0);
    if (*swap > 0 && (of_memory <= 0 || *swap < of_memory)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "memory.swap: ", *swap, " is no limit of memory and swap together beside a limit of ", of_memory));
    }
    const std::int64_t of_swap = *swap - of_memory;
    // A kernel without swap has no such file.
    writes_.push_back({.file = "memory.swap.max", .value = LimitOf(of_swap), .optional = of_swap <= 0});
    return absl::OkStatus();
  }

  Status AddUnified(const Json& unified) {
    if (!unified.is_object()) return Refused("unified", unified);
    for (const auto& [file, value] : unified.items()) {
      const std::string field = absl::StrCat("unified[", Printable(file, 40), "]");
      if (file.find('.') == std::string::npos || file.find('/') != std::string::npos ||
          file.find('\0') != std::string::npos) {
        return absl::InvalidArgumentError(absl::StrCat(field, ": is no file of a cgroup"));
      }
      if (!value.is_string()) return Refused(field, value);
      writes_.push_back({.file = file, .value = value.get<std::string>()});
    }
    return absl::OkStatus();
  }

  Status AddHugePages(const Json& limits) {
    if (!limits.is_array()) return Refused("hugepageLimits", limits);
    for (const Json& limit : limits) {
      const bool whole = limit.is_object() && limit.value("pageSize", Json()).is_string() &&
                         limit.value("limit", Json()).is_number_unsigned();
      if (!whole || limit["pageSize"].get_ref<const std::string&>().find('/') != std::string::npos) {
        return Refused("hugepageLimits", limit);
      }
      writes_.push_back({.file = absl::StrCat("hugetlb.", limit["pageSize"].get_ref<const std::string&>(), ".max"),
                         .value = absl::StrCat(limit["limit"].get<std::uint64_t>())});
    }
    return absl::OkStatus();
  }

  const std::string& cgroup_;
  std::vector<Write> writes_;
};

// An empty list of CPUs is a line as well.
Status WriteValue(const std::string& path, const std::string& value) {
  return WriteFile(path, value.empty() ? "\n" : value);
}

// In reverse order.
Status TakeBack(const std::string& cgroup, const std::vector<Write>& before) {
  Status result;
  for (auto write = before.rbegin(); write != before.rend(); ++write) {
    result.Update(WriteValue(absl::StrCat(cgroup, "/", write->file), write->value));
  }
  return result;
}

}  // namespace

Status ChangeLimits(const std::string& cgroup, std::string_view resources_json) {
  HUSK_ASSIGN_OR_RETURN(const Json resources, ParseOciJson(resources_json, "resources_json"));
  Plan plan(cgroup);
  HUSK_RETURN_IF_ERROR(plan.Add(resources));
  std::vector<Write> before;
  for (const Write& write : plan.writes()) {
    const std::string path = absl::StrCat(cgroup, "/", write.file);
    const auto present = ReadFile(path);
    if (absl::IsNotFound(present.status()) && write.optional) continue;
    Status written = present.ok() ? WriteValue(path, write.value) : present.status();
    if (written.ok()) {
      before.push_back({.file = write.file, .value = std::string(Trim(*present))});
      continue;
    }
    const Status taken_back = TakeBack(cgroup, before);
    const std::string words =
        absl::StrCat(Printable(write.file, 80), ": ",
                     absl::IsNotFound(written) ? "the guest's kernel has no such file"
                                               : absl::StrCat(Printable(write.value, 80), ": ", written.message()));
    if (taken_back.ok()) return absl::InvalidArgumentError(words);
    return absl::InternalError(absl::StrCat(words, "; and what it was: ", taken_back.message()));
  }
  return absl::OkStatus();
}

}  // namespace husk::agent
