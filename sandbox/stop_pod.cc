#include <chrono>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "agent/common/fault_point.h"
#include "sandbox/logging.h"
#include "sandbox/pod_operations.h"

namespace husk::sandbox {
namespace {

// How long a guest has to kill its containers and hand over their last output before the VM goes.
constexpr auto kLastOutputWait = std::chrono::seconds(3);

// The kubelet stops containers before their pod. What still runs is killed inside, so that its last output reaches the
// log; a guest that does not react loses it.
void KillContainers(const Context& context, Pod& pod) {
  const auto vm = pod.vm();
  const auto client = pod.client();
  if (vm == nullptr || client == nullptr || !vm->alive()) return;
  const Context limited = context.WithTimeout(kLastOutputWait);
  std::vector<std::string> killed_ids;
  for (const ContainerStatus& status : pod.ContainerSnapshots()) {
    if (status.state != ContainerState::kRunning) continue;
    agent::v1::SignalContainerRequest request;
    request.set_container_id(status.id);
    request.set_signal(SIGKILL);
    request.set_all_processes(true);
    const Status killed = client->SignalContainer(limited, request);
    if (killed.ok()) killed_ids.push_back(status.id);
    if (!killed.ok()) spdlog::warn("pod={} container={} kill: {}", pod.id(), status.id, Words(killed));
  }
  for (const std::string& id : killed_ids) pod.WaitForExit(limited, id).IgnoreError();
}

Status EndVm(Environment& environment, const Context& context, Pod& pod) {
  KillContainers(context, pod);
  if (const auto vm = pod.vm()) {
    HUSK_RETURN_IF_ERROR_DOING(vm->Kill(context), absl::StrCat("kill the VM of pod ", pod.id()));
  }
  // Also what an earlier process started and this one does not know as a VM.
  HUSK_RETURN_IF_ERROR_DOING(environment.parts.hypervisor->Destroy(context, environment.paths.vm_state(pod.id())),
                             absl::StrCat("end the VM of pod ", pod.id()));
  FaultPoint("stop_pod.vm_stopped");
  for (const ContainerStatus& status : pod.MarkEnded(kStoppedMessage, kStoppedCode, "Error")) {
    const Status recorded = environment.store->SetContainerExited(status);
    if (!recorded.ok()) spdlog::error("pod={} container={} {}", pod.id(), status.id, Words(recorded));
  }
  pod.LetGo();
  return absl::OkStatus();
}

}  // namespace

Status StopPodVm(Environment& environment, const Context& context, Pod& pod) {
  if (pod.stopped()) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(EndVm(environment, context, pod));
  HUSK_RETURN_IF_ERROR_DOING(environment.parts.network->Detach(context, pod.network_request()),
                             absl::StrCat("detach the network of pod ", pod.id()));
  FaultPoint("stop_pod.network_removed");
  HUSK_RETURN_IF_ERROR(environment.store->SetPodPhase(pod.id(), PodPhase::kStopped));
  FaultPoint("stop_pod.stopped_recorded");
  pod.SetStopped();
  spdlog::info("pod={} stopped", pod.id());
  return absl::OkStatus();
}

Status RemovePodTraces(Environment& environment, const Context& context, Pod& pod) {
  HUSK_RETURN_IF_ERROR(StopPodVm(environment, context, pod));
  HUSK_RETURN_IF_ERROR(environment.store->SetPodPhase(pod.id(), PodPhase::kRemoving));
  FaultPoint("remove_pod.recorded");
  HUSK_RETURN_IF_ERROR_DOING(environment.parts.cgroups->Remove(context, pod.config().cgroup_parent, pod.id()),
                             absl::StrCat("remove the cgroup of pod ", pod.id()));
  FaultPoint("remove_pod.cgroup_removed");
  HUSK_RETURN_IF_ERROR(RemoveTree(environment.paths.vm_state(pod.id())));
  HUSK_RETURN_IF_ERROR(RemoveTree(environment.paths.pod_root(pod.id())));
  FaultPoint("remove_pod.files_removed");
  HUSK_RETURN_IF_ERROR_DOING(environment.parts.network->RemoveNamespace(context, pod.id()),
                             absl::StrCat("remove the network namespace of pod ", pod.id()));
  FaultPoint("remove_pod.netns_removed");
  for (const Container& container : pod.containers()) pod.DropContainer(container.id);
  HUSK_RETURN_IF_ERROR(environment.store->RemovePod(pod.id()));
  pod.SetRemoved();
  spdlog::info("pod={} removed", pod.id());
  return absl::OkStatus();
}

}  // namespace husk::sandbox
