// Changes of limits while a pod lives.
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/container_operations.h"
#include "sandbox/huge_pages.h"
#include "sandbox/logging.h"
#include "sandbox/oci/oci_config.h"
#include "sandbox/pod_operations.h"
#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

constexpr auto kGiveBackWait = std::chrono::seconds(10);

// What fails is tried again by the next change of the pod's huge pages.
void TryToGiveBack(Environment& environment, const Context& context, Pod& pod) {
  const Status status = GiveBackHugePages(environment, pod.Interruptible(context.Detached(kGiveBackWait)), pod);
  if (!status.ok()) spdlog::warn("pod={} {}", pod.id(), Words(status));
}

}  // namespace

Status UpdateContainerInPod(Environment& environment, const Context& context, Pod& pod, const std::string& id,
                            const LinuxResources& change) {
  const auto status = pod.container_status(id);
  const auto client = pod.client();
  if (!status) return absl::NotFoundError(absl::StrCat("there is no container ", id));
  if (status->state == ContainerState::kExited || client == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("container ", id, " has exited"));
  }
  ContainerConfig config = status->config;
  config.resources = Changed(config.resources, change);
  agent::v1::UpdateResourcesRequest request;
  request.set_container_id(id);
  request.set_resources_json(MakeOciResources(config.resources));
  const bool other_pages = config.resources.hugepage_limits != status->config.resources.hugepage_limits;
  if (other_pages) HUSK_RETURN_IF_ERROR(MakeRoomForHugePages(environment, context, pod, id, config.resources));
  const Status updated = client->UpdateResources(context, request);
  if (!updated.ok()) {
    if (other_pages) TryToGiveBack(environment, context, pod);
    return Annotate(updated, absl::StrCat("change the limits of container ", id));
  }
  // Without a record the next huskd would show the old ones; the caller repeats the call.
  HUSK_RETURN_IF_ERROR(environment.store->SetContainerConfig(id, config));
  pod.SetContainerResources(id, std::move(config.resources));
  if (other_pages) TryToGiveBack(environment, context, pod);
  spdlog::info("pod={} container={} has other limits", pod.id(), id);
  return absl::OkStatus();
}

Status UpdatePodLimits(Environment& environment, Pod& pod, const LinuxResources& resources,
                       const LinuxResources& overhead) {
  PodConfig config = pod.Snapshot(false).config;
  config.resources = Changed(config.resources, resources);
  config.overhead = Changed(config.overhead, overhead);
  std::uint64_t memory = pod.vm_memory_bytes();
  if (memory == 0) memory = SizeVm(environment.options, config.resources, config.overhead).memory_bytes;
  const Status set = environment.parts.cgroups->SetLimits(config.cgroup_parent, pod.id(),
                                                          LimitsOnHost(memory, config.resources, config.overhead));
  if (!set.ok()) spdlog::warn("pod={} limit its cgroup: {}", pod.id(), Words(set));
  HUSK_RETURN_IF_ERROR(environment.store->SetPodConfig(pod.id(), config));
  pod.SetResources(std::move(config.resources), std::move(config.overhead));
  return absl::OkStatus();
}

}  // namespace husk::sandbox
