#include "agent/guest/resources.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

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

void Fit(Json& resources, const GuestTopology& topology) {
  const auto cpu = resources.find("cpu");
  if (cpu == resources.end() || !cpu->is_object()) return;
  const auto fit = [&cpu](const char* name, std::string_view present) {
    const auto list = cpu->find(name);
    if (list != cpu->end() && NamesMissing(*list, present)) cpu->erase(list);
  };
  fit("cpus", topology.cpus);
  fit("mems", topology.memory_nodes);
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
  Fit(resources, topology);
  return Dump(resources);
}

StatusOr<std::string> FitConfig(std::string_view config_json, const GuestTopology& topology) {
  HUSK_ASSIGN_OR_RETURN(Json config, ParseOciJson(config_json, "oci_config_json"));
  const auto linux_part = config.find("linux");
  if (linux_part != config.end() && linux_part->is_object()) {
    const auto resources = linux_part->find("resources");
    if (resources != linux_part->end() && resources->is_object()) Fit(*resources, topology);
  }
  return Dump(config);
}

StatusOr<std::string> MergeResources(std::string_view config_json, std::string_view resources_json) {
  HUSK_ASSIGN_OR_RETURN(Json config, ParseOciJson(config_json, "oci_config_json"));
  HUSK_ASSIGN_OR_RETURN(const Json resources, ParseOciJson(resources_json, "resources_json"));
  config.merge_patch({{"linux", {{"resources", resources}}}});
  return Dump(config);
}

}  // namespace husk::agent
