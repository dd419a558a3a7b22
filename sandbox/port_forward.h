// Carries the connections of one client to ports in a pod's guest.
#ifndef HUSK_SANDBOX_PORT_FORWARD_H_
#define HUSK_SANDBOX_PORT_FORWARD_H_

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/pod.h"
#include "sandbox/port_exchange.h"

namespace husk::sandbox {

// See Runtime::PortForward. Two threads for all connections: the caller's carries input into the guest, another one
// asks the guest for what has arrived.
Status ForwardPorts(const Context& context, Pod& pod, PortExchange& exchange);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_PORT_FORWARD_H_
