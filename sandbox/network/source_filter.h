// Which frames of a guest may leave its tap: those that tell the truth about who sends them.
#ifndef HUSK_SANDBOX_NETWORK_SOURCE_FILTER_H_
#define HUSK_SANDBOX_NETWORK_SOURCE_FILTER_H_

#include <linux/bpf.h>

#include <vector>

#include "agent/common/status.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// A classifier for the tap of this interface; it lets a frame go on to the next filter, or drops it (docs/adr/0033).
// What goes on: frames without a VLAN's tag, from the interface's MAC, that are
//   IPv4 from one of its addresses, or a DHCP client's question, and not to 127.0.0.0/8;
//   ARP that names the MAC and one of the addresses as its sender (or none: a probe);
//   IPv6 from one of its addresses, from the link-local address that follows from its MAC, or from none yet (duplicate
//   address detection), not to ::1, without headers that would hide an ICMPv6 message; of these no router's
//   advertisement, no redirect, and no neighbour's advertisement for somebody else's address.
// With no addresses at all (a network of layer 2 only) nothing but the MAC is looked at. INVALID_ARGUMENT if a MAC or
// an address is none, or if there are more than 64 addresses.
StatusOr<std::vector<bpf_insn>> SourceFilter(const NetworkInterface& interface);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_SOURCE_FILTER_H_
