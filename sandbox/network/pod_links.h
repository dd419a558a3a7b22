// Brings what CNI said together with the links that are in the pod's namespace.
#ifndef HUSK_SANDBOX_NETWORK_POD_LINKS_H_
#define HUSK_SANDBOX_NETWORK_POD_LINKS_H_

#include <vector>

#include "agent/common/status.h"
#include "sandbox/network/link.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// Completes the interfaces of a CNI result by the namespace's links: MAC and MTU are those of the links. Further links
// that are up and carry Ethernet become further interfaces: a meta-plugin makes them and tells of the first alone
// (docs/adr/0034). The loopback goes: the guest has its own. Else an error that names the interface: one that is not
// there, carries no Ethernet, or lies on another of the namespace, and more than eight. A pure function.
Status MergeLinks(const std::vector<Link>& links, NetworkResult& result);

// Adds the routes that the namespace has, by interface in the order of the result's. A result does not say which
// interface a route without a gateway is for: where the namespace has the destination at another interface alone, it is
// that one's.
void MergeRoutes(const std::vector<std::vector<NetworkRoute>>& present, NetworkResult& result);

// The same with the links of the calling thread's namespace, and with their routes and permanent neighbours (and
// addresses, of further links): some plugins set what they do not tell.
Status CompleteFromNamespace(NetworkResult& result);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_POD_LINKS_H_
