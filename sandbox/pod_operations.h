// The steps of a pod's life. Each is called by the one who has the pod's turn, or to whom alone the pod is known.
#ifndef HUSK_SANDBOX_POD_OPERATIONS_H_
#define HUSK_SANDBOX_POD_OPERATIONS_H_

#include <csignal>
#include <cstdint>
#include <memory>
#include <string>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/environment.h"
#include "sandbox/pod.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// Of a container that ended because its pod was stopped.
inline constexpr std::int32_t kStoppedCode = 128 + SIGKILL;
inline constexpr char kStoppedMessage[] = "killed when its pod was stopped";

// INVALID_ARGUMENT that names the field: what no VM can do, or what is missing.
Status CheckPodConfig(const PodConfig& config);

// From the record that is in the store to a READY pod with its monitor. On failure everything is undone, the record
// too, and the pod is `removed`; or, if undoing failed, the record says that it is to be removed.
Status MakePod(Environment& environment, const Context& context, Pod& pod);

// What the pod's containers and the VM itself may use from now on: the VM's size, and the limits of its cgroup on the
// host. Those are best effort, as the caller's own cgroup above it holds too.
Status UpdatePodLimits(Environment& environment, const Context& context, Pod& pod, const LinuxResources& resources,
                       const LinuxResources& overhead);

// The VM, the containers in it and the network go; the namespace, the cgroup and the disks stay. Repeatable.
Status StopPodVm(Environment& environment, const Context& context, Pod& pod);
// Stops, then removes everything, the record last. Repeatable.
Status RemovePodTraces(Environment& environment, const Context& context, Pod& pod);

// Connects hypervisor's news of the VM's end to the runtime, and gives the pod its VM and the agent's channel.
void TakeVm(Environment& environment, const Context& context, Pod& pod, std::unique_ptr<hypervisor::Vm> vm);
// Starts the pod's monitor, which records what it sees.
void StartPodMonitor(Environment& environment, Pod& pod);
// The VM ended by itself: shows that at once, then records it.
void PodVmEnded(Environment& environment, Pod& pod, const std::string& reason);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_POD_OPERATIONS_H_
