#include "agent/common/fault_point.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>

namespace husk {

const std::vector<std::string>& FaultPoints() {
  static const std::vector<std::string> names = {
      // RunPodSandbox
      "run_pod.recorded",
      "run_pod.netns_created",
      "run_pod.cni_added",
      "run_pod.tap_created",
      "run_pod.cgroup_created",
      "run_pod.scratch_created",
      "run_pod.vm_started",
      "run_pod.agent_ready",
      "run_pod.guest_configured",
      "run_pod.ready_recorded",
      // CreateContainer
      "create_container.recorded",
      "create_container.disk_attached",
      "create_container.volumes_prepared",
      "create_container.devices_attached",
      "create_container.created_in_guest",
      "create_container.created_recorded",
      // A resize: growing, the container's limits, shrinking
      "resize.recorded",
      "resize.host_raised",
      "resize.memory_plugged",
      "resize.vcpus_plugged",
      "resize.guest_grown",
      "resize.container_updated",
      "resize.guest_shrunk",
      "resize.memory_unplugged",
      "resize.host_lowered",
      // RemovePodSandbox (with the stop it implies)
      "stop_pod.vm_stopped",
      "stop_pod.network_removed",
      "stop_pod.stopped_recorded",
      "remove_pod.recorded",
      "remove_pod.cgroup_removed",
      "remove_pod.files_removed",
      "remove_pod.netns_removed",
  };
  return names;
}

void FaultPoint(std::string_view name) {
  // Read once: the environment of a running daemon does not change.
  static const std::string armed = [] {
    const char* value = std::getenv("HUSK_FAULT_POINT");  // NOLINT(concurrency-mt-unsafe): nothing calls setenv
    return std::string(value == nullptr ? "" : value);
  }();
  if (armed.empty()) return;
  const auto& names = FaultPoints();
  if (std::find(names.begin(), names.end(), name) == names.end()) std::abort();
  if (armed == name) std::raise(SIGKILL);
}

}  // namespace husk
