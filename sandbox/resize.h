// A pod's VM grows and shrinks with its containers. docs/adr/0115, 0116, 0117.
#ifndef HUSK_SANDBOX_RESIZE_H_
#define HUSK_SANDBOX_RESIZE_H_

#include <string>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/environment.h"
#include "sandbox/pod.h"
#include "sandbox/types.h"
#include "sandbox/wanted_size.h"

namespace husk::sandbox {

// All are called by the one who has the pod's turn, and repeatable. They cost nothing where the VM has its size
// already.

// What the pod was announced with, and its containers that have not ended, but for one.
PodNeeds NeedsOf(const Pod& pod, const std::string& but = "");

// Before the first effect of a change of limits: should this process die, the next one converges. The record is taken
// back by FitPod.
Status RecordResize(Environment& environment, Pod& pod);

// Makes room: the host's cgroup, then the VM's memory and vCPUs, then the guest. Nothing shrinks. On failure some of it
// may have grown: FitPod takes it back. RESOURCE_EXHAUSTED if the VM or the guest cannot have as much.
Status GrowPod(Environment& environment, const Context& context, Pod& pod, const PodNeeds& needs);

// Takes away what `needs` do not need: from the guest, then from the VM, then the host's cgroup. What the guest does
// not let go at once is owed: the error says what, and Environment::owe_resize goes on with it. The cgroup on the host
// is never below what the VM still has.
Status FitPod(Environment& environment, const Context& context, Pod& pod, const PodNeeds& needs);

// Whatever was begun and not finished: the limits of the containers in the guest, if they are in doubt, and the VM's
// size are what the records say. OK, too, for a pod that is not READY any more.
Status ConvergePod(Environment& environment, const Context& context, Pod& pod);

// Sends a container's limits to the guest.
Status SendLimits(const Context& context, Pod& pod, const std::string& container_id, const LinuxResources& limits,
                  bool check_only = false);

// The guest has these limits now: that is recorded, and they are shown.
void ConfirmLimits(Environment& environment, Pod& pod, const ContainerStatus& container, const LinuxResources& limits);

// A pod that was adopted: how many vCPUs its guest uses, if nothing was under way.
void AdoptSize(Environment& environment, Pod& pod);

// Which of the fields are why a VM grows, for errors.
std::string LimitFields(const LinuxResources& resources);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_RESIZE_H_
