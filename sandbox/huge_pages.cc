#include "sandbox/huge_pages.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "sandbox/pod_operations.h"
#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

// Of those that have not ended: the guest lets go of the others' pages.
std::vector<LinuxResources> InForce(const Pod& pod, const std::string& but) {
  std::vector<LinuxResources> result;
  for (ContainerStatus& container : pod.ContainerSnapshots()) {
    if (container.state == ContainerState::kExited || container.id == but) continue;
    result.push_back(std::move(container.config.resources));
  }
  return result;
}

// The larger of both, for each size.
LinuxResources Most(const LinuxResources& before, const LinuxResources& after) {
  LinuxResources most = after;
  for (const auto& [size, bytes] : before.hugepage_limits) {
    std::uint64_t& larger = most.hugepage_limits[size];
    larger = std::max(larger, bytes);
  }
  return most;
}

std::string FieldsOf(const LinuxResources& resources) {
  std::vector<std::string> parts;
  for (const auto& [size, bytes] : resources.hugepage_limits) {
    if (bytes != 0) parts.push_back(absl::StrCat("hugepage_limits[", size, "]"));
  }
  return absl::StrJoin(parts, ", ");
}

Status Plug(Environment& environment, const Context& context, Pod& pod, const std::vector<LinuxResources>& containers) {
  const auto vm = pod.vm();
  if (vm == nullptr) return absl::FailedPreconditionError("the pod has no VM");
  HUSK_RETURN_IF_ERROR(vm->SetPluggedMemory(context, MemoryForHugePages(containers)));
  RefreshVm(environment, context, pod);
  return absl::OkStatus();
}

}  // namespace

bool HasHugePages(const LinuxResources& resources) {
  return std::any_of(resources.hugepage_limits.begin(), resources.hugepage_limits.end(),
                     [](const auto& limit) { return limit.second != 0; });
}

Status MakeRoomForHugePages(Environment& environment, const Context& context, Pod& pod, const std::string& container_id,
                            const LinuxResources& wanted) {
  std::vector<LinuxResources> containers = InForce(pod, container_id);
  const auto present = pod.container_status(container_id);
  // A smaller limit is not in force yet.
  containers.push_back(present ? Most(present->config.resources, wanted) : wanted);
  return Annotate(Plug(environment, context, pod, containers), FieldsOf(wanted));
}

Status GiveBackHugePages(Environment& environment, const Context& context, Pod& pod, const std::string& removed) {
  return Annotate(Plug(environment, context, pod, InForce(pod, removed)), "give back memory of huge pages");
}

}  // namespace husk::sandbox
