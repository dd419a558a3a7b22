#include "agent/guest/resources.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "agent/common/printable.h"
#include "agent/guest/files.h"
#include "agent/guest/oci_json.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

using Json = nlohmann::json;

constexpr std::uint32_t kMaximumNumber = 8192;  // the kernel's own limit of CPUs

std::optional<std::set<std::uint32_t>> ParseList(std::string_view list) {
  std::set<std::uint32_t> numbers;
  for (const std::string_view range : Split(Trim(list), ',')) {
    const std::size_t dash = range.find('-');
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    if (!ParseNumber(range.substr(0, dash), first)) return std::nullopt;
    if (dash == std::string_view::npos) {
      last = first;
    } else if (!ParseNumber(range.substr(dash + 1), last)) {
      return std::nullopt;
    }
    if (last < first || last > kMaximumNumber) return std::nullopt;
    for (std::uint32_t number = first; number <= last; ++number) numbers.insert(number);
  }
  return numbers;
}

bool NamesMissing(const Json& value, std::string_view present) {
  if (!value.is_string()) return false;
  const auto wanted = ParseList(value.get_ref<const std::string&>());
  const auto have = ParseList(present);
  if (!wanted || !have) return false;
  return !std::includes(have->begin(), have->end(), wanted->begin(), wanted->end());
}

void FitCpu(Json& resources, const GuestTopology& topology) {
  const auto cpu = resources.find("cpu");
  if (cpu == resources.end() || !cpu->is_object()) return;
  const auto fit = [&cpu](const char* name, std::string_view present) {
    const auto list = cpu->find(name);
    if (list != cpu->end() && NamesMissing(*list, present)) cpu->erase(list);
  };
  fit("cpus", topology.cpus);
  fit("mems", topology.memory_nodes);
}

// The list, if there is one that is whole.
Json* FindHugePageLimits(Json& resources) {
  const auto list = resources.find("hugepageLimits");
  if (list == resources.end() || !list->is_array()) return nullptr;
  const bool whole = std::all_of(list->begin(), list->end(), [](const Json& limit) {
    return limit.is_object() && limit.contains("pageSize") && limit["pageSize"].is_string() &&
           limit.contains("limit") && limit["limit"].is_number_unsigned();
  });
  return whole ? &*list : nullptr;
}

Status FitHugePages(Json& resources, const std::vector<std::string>& sizes) {
  Json* const limits = FindHugePageLimits(resources);
  if (limits == nullptr) return absl::OkStatus();
  Json fitted = Json::array();
  for (const Json& limit : *limits) {
    const auto& size = limit["pageSize"].get_ref<const std::string&>();
    if (std::find(sizes.begin(), sizes.end(), size) != sizes.end()) {
      fitted.push_back(limit);
    } else if (limit["limit"] != 0) {
      return absl::InvalidArgumentError(absl::StrCat("hugepage_limits[", Printable(size, 40),
                                                     "]: the VM's kernel has huge pages of ",
                                                     sizes.empty() ? "no size" : absl::StrJoin(sizes, " and ")));
    }
  }
  *limits = std::move(fitted);
  return absl::OkStatus();
}

Status Fit(Json& resources, const GuestTopology& topology) {
  FitCpu(resources, topology);
  return FitHugePages(resources, topology.huge_page_sizes);
}

// Null if it has none.
Json* FindResources(Json& config) {
  const auto linux_part = config.find("linux");
  if (linux_part == config.end() || !linux_part->is_object()) return nullptr;
  const auto resources = linux_part->find("resources");
  return resources != linux_part->end() && resources->is_object() ? &*resources : nullptr;
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

GuestTopology ReadTopology() {
  GuestTopology topology;
  const auto cpus = ReadFile("/sys/devices/system/cpu/online", 4096);
  const auto nodes = ReadFile("/sys/devices/system/node/online", 4096);
  topology.cpus = cpus.ok() ? Trim(*cpus) : "0";
  // A kernel without NUMA has one node, and no such file.
  topology.memory_nodes = nodes.ok() ? Trim(*nodes) : "0";
  return topology;
}

StatusOr<std::string> FitResources(std::string_view resources_json, const GuestTopology& topology) {
  HUSK_ASSIGN_OR_RETURN(Json resources, ParseOciJson(resources_json, "resources_json"));
  HUSK_RETURN_IF_ERROR(Fit(resources, topology));
  return Dump(resources);
}

StatusOr<std::string> FitConfig(std::string_view config_json, const GuestTopology& topology) {
  HUSK_ASSIGN_OR_RETURN(Json config, ParseOciJson(config_json, "oci_config_json"));
  if (Json* const resources = FindResources(config)) HUSK_RETURN_IF_ERROR(Fit(*resources, topology));
  return Dump(config);
}

StatusOr<std::string> MergeResources(std::string_view config_json, std::string_view resources_json) {
  HUSK_ASSIGN_OR_RETURN(Json config, ParseOciJson(config_json, "oci_config_json"));
  HUSK_ASSIGN_OR_RETURN(const Json resources, ParseOciJson(resources_json, "resources_json"));
  config.merge_patch({{"linux", {{"resources", resources}}}});
  return Dump(config);
}

StatusOr<HugePageBytes> HugePageLimits(std::string_view config_json) {
  HUSK_ASSIGN_OR_RETURN(Json config, ParseOciJson(config_json, "oci_config_json"));
  HugePageBytes result;
  Json* const resources = FindResources(config);
  const Json* const limits = resources == nullptr ? nullptr : FindHugePageLimits(*resources);
  if (limits == nullptr) return result;
  for (const Json& limit : *limits) result[limit["pageSize"].get<std::string>()] = limit["limit"].get<std::uint64_t>();
  return result;
}

std::optional<std::uint64_t> MemoryLimit(std::string_view resources_json) {
  const auto resources = ParseOciJson(resources_json, "resources_json");
  if (!resources.ok()) return std::nullopt;
  const Json memory = resources->value("memory", Json());
  const Json limit = memory.is_object() ? memory.value("limit", Json()) : Json();
  if (!limit.is_number_integer() || limit.get<std::int64_t>() <= 0) return std::nullopt;
  return limit.get<std::uint64_t>();
}

}  // namespace husk::agent
