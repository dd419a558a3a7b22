#include "cri/config/pod_annotations.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "agent/common/printable.h"
#include "cri/config/fields.h"

namespace husk::cri {
namespace {

struct PodAnnotation {
  const char* name;
  const char* key;
};

constexpr PodAnnotation kPodAnnotations[] = {{kDefaultVcpusAnnotation, "vm.default_vcpus"},
                                             {kUnlimitedCpuPercentAnnotation, "vm.unlimited_cpu_percent"},
                                             {kDefaultMemoryAnnotation, "vm.default_memory"},
                                             {kUnlimitedMemoryAnnotation, "vm.unlimited_memory"},
                                             {kScratchSizeAnnotation, "vm.scratch_size"}};
constexpr std::size_t kLongestShown = 300;

const PodAnnotation* Find(std::string_view name) {
  const auto* const found = std::find_if(std::begin(kPodAnnotations), std::end(kPodAnnotations),
                                         [&](const PodAnnotation& each) { return each.name == name; });
  return found == std::end(kPodAnnotations) ? nullptr : found;
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const PodAnnotation& each : kPodAnnotations) names.emplace_back(each.name);
  return names;
}

// Both may hold what a pod's author wrote.
Status Refuse(absl::StatusCode code, const std::string& name, std::string_view why) {
  return {code,
          absl::StrCat("config.annotations[", Printable(name, kLongestShown), "]: ", Printable(why, kLongestShown))};
}

Status Apply(const PodAnnotation& annotation, const std::string& value, Config* config) {
  for (const ConfigField& field : ConfigFields()) {
    if (field.key != annotation.key) continue;
    HUSK_RETURN_IF_ERROR(field.set(YAML::Node(value), config));
    return CheckConfig(*config);
  }
  return absl::InternalError(absl::StrCat("there is no key ", annotation.key));
}

// A node's ceiling of growth may be more than its maximum, which ends it anyway; who asks for one is told.
Status CheckUnlimitedMemory(const Config& config) {
  const Config::VirtualMachine& vm = config.vm;
  if (vm.maximum_memory == 0 || vm.unlimited_memory <= vm.maximum_memory) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("vm.unlimited_memory (", FormatByteSize(vm.unlimited_memory),
                                                 ") is above vm.maximum_memory (", FormatByteSize(vm.maximum_memory),
                                                 ")"));
}

}  // namespace

Status CheckPodAnnotation(const std::string& name) {
  if (Find(name) != nullptr) return absl::OkStatus();
  const std::string nearest = NearestName(name, Names());
  const std::string hint = nearest.empty() ? absl::StrCat("; there are ", absl::StrJoin(Names(), ", "))
                                           : absl::StrCat("; did you mean \"", nearest, "\"?");
  return absl::InvalidArgumentError(absl::StrCat("\"", Printable(name, kLongestShown), "\" is unknown", hint));
}

StatusOr<Config> ConfigForPod(const Config& node, const std::map<std::string, std::string>& annotations) {
  Config config = node;
  const std::vector<std::string>& allowed = node.vm.allowed_annotations;
  for (const auto& [name, value] : annotations) {
    if (!absl::StartsWith(name, kAnnotationPrefix)) continue;
    const Status known = CheckPodAnnotation(name);
    if (!known.ok()) return Refuse(known.code(), name, std::string(known.message()));
    if (std::find(allowed.begin(), allowed.end(), name) == allowed.end()) {
      return Refuse(absl::StatusCode::kPermissionDenied, name, "this node's vm.allowed_annotations does not have it");
    }
    Status applied = Apply(*Find(name), value, &config);
    if (applied.ok() && name == kUnlimitedMemoryAnnotation) applied = CheckUnlimitedMemory(config);
    if (!applied.ok()) return Refuse(applied.code(), name, std::string(applied.message()));
  }
  return config;
}

}  // namespace husk::cri
