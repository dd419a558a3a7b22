// The memory of a pod's VM that its containers' huge pages are made of. docs/adr/0110.
#ifndef HUSK_SANDBOX_HUGE_PAGES_H_
#define HUSK_SANDBOX_HUGE_PAGES_H_

#include <string>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/environment.h"
#include "sandbox/pod.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// All are called by the one who has the pod's turn.

[[nodiscard]] bool HasHugePages(const LinuxResources& resources);

// Plugs memory into the VM for the huge pages of `wanted`, which the container is about to have, beside those of the
// pod's other containers. RESOURCE_EXHAUSTED, by the field, when the VM cannot have as much. The limits of the pod's
// cgroup on the host follow.
Status MakeRoomForHugePages(Environment& environment, const Context& context, Pod& pod, const std::string& container_id,
                            const LinuxResources& wanted);
// Takes out what the pod's containers, but for one that is being removed, do not need any more, as far as the guest
// lets it go.
Status GiveBackHugePages(Environment& environment, const Context& context, Pod& pod, const std::string& removed = "");

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_HUGE_PAGES_H_
