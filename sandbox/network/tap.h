// The tap that stands for the guest's network card, joined to a CNI interface.
#ifndef HUSK_SANDBOX_NETWORK_TAP_H_
#define HUSK_SANDBOX_NETWORK_TAP_H_

#include <string>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// Makes a tap in the namespace, up, with the interface's MTU; frames that arrive at one leave by the other, those of
// the guest only if they pass SourceFilter (with `filter_sources`). The tap lives as long as the descriptor
// (non-blocking, close-on-exec, frames with a vnet header). Called again after the descriptor was closed it replaces
// what is left of the first.
StatusOr<UniqueFd> OpenTap(const std::string& namespace_path, const NetworkInterface& interface, bool filter_sources);

// OK if the kernel can do the traffic control that OpenTap needs: tried in a namespace of its own, so that nothing of
// the host changes. Else which part it lacks.
Status ProbeTrafficControl(bool filter_sources);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_TAP_H_
