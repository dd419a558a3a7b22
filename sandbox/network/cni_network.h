// What belongs to the CNI implementation of Network and to no single pod. NewCniNetwork is in network.h.
#ifndef HUSK_SANDBOX_NETWORK_CNI_NETWORK_H_
#define HUSK_SANDBOX_NETWORK_CNI_NETWORK_H_

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// OK if pods of the default network can reach beyond the host: iptables can masquerade here (tried in a namespace of
// its own, so nothing of the host changes). Else why not; then the default network has neither masquerade nor host
// ports, and pods and host still reach each other.
Status ProbeMasquerade(const Context& context);

// Deletes the default network's bridge and its address leases. For taking Husk off a node: while pods come and go the
// bridge stays, as every CNI bridge does. OK if there is none; FAILED_PRECONDITION if a link is still plugged in or the
// link of that name is no bridge.
Status RemoveDefaultBridge(const CniOptions& options);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_CNI_NETWORK_H_
