#include "cri/convert/annotations.h"

#include "cri/config/pod_annotations.h"

namespace husk::cri {

StatusOr<sandbox::VmChoices> VmChoicesFromAnnotations(const sandbox::StringMap& annotations, const Config& node) {
  HUSK_ASSIGN_OR_RETURN(const Config config, ConfigForPod(node, annotations));
  const Config::VirtualMachine& vm = config.vm;
  // What the pod does not name follows the node's settings, when they change too.
  const auto take = [&](const char* name, auto value, auto& choice) {
    if (annotations.contains(name)) choice = value;
  };
  sandbox::VmChoices choices;
  take(kDefaultVcpusAnnotation, vm.default_vcpus, choices.default_vcpus);
  take(kUnlimitedCpuPercentAnnotation, UnlimitedVcpus(config), choices.unlimited_vcpus);
  take(kDefaultMemoryAnnotation, vm.default_memory, choices.default_memory_bytes);
  take(kUnlimitedMemoryAnnotation, vm.unlimited_memory, choices.unlimited_memory_bytes);
  take(kScratchSizeAnnotation, vm.scratch_size, choices.scratch_bytes);
  return choices;
}

}  // namespace husk::cri
