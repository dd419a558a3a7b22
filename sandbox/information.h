// What verbose status tells beside the CRI's own fields.
#ifndef HUSK_SANDBOX_INFORMATION_H_
#define HUSK_SANDBOX_INFORMATION_H_

#include <optional>

#include "sandbox/environment.h"
#include "sandbox/pod.h"
#include "sandbox/stats.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// Values are JSON. No registry credentials are in them, as no pod or container has any; environment values are.

// Absent without a VM, or while nothing is known of it. Asks nobody.
std::optional<VmFigures> VmFiguresOf(const Environment& environment, const Pod& pod);

// vm, disks, cniResult, config, volumes: the empty directories in the guest with what they took when the guest was last
// asked for its figures.
StringMap PodInformation(const Environment& environment, const Pod& pod);
// info: pid in the guest, sandbox, image, disk, runtimeSpec (as sent to the guest, which completes it).
StringMap ContainerInformation(const Pod& pod, const ContainerStatus& status);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_INFORMATION_H_
