// Husk's own network, for nodes on which nobody configured one.
#ifndef HUSK_SANDBOX_NETWORK_DEFAULT_BRIDGE_H_
#define HUSK_SANDBOX_NETWORK_DEFAULT_BRIDGE_H_

#include "agent/common/status.h"
#include "sandbox/network/cni_config.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// A bridge with host-local addresses, whose leases lie below the cache directory; with masquerade and host ports if
// iptables works. Named after the bridge, so that two instances with different options share nothing.
// INVALID_ARGUMENT if the bridge's name or the subnet cannot be used.
StatusOr<CniConfigList> DefaultBridgeNetwork(const CniOptions& options, bool masquerade);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_DEFAULT_BRIDGE_H_
