// Links, routes and traffic control by rtnetlink, in the network namespace of the calling thread.
#ifndef HUSK_SANDBOX_NETWORK_LINK_H_
#define HUSK_SANDBOX_NETWORK_LINK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

struct Link {
  int index = 0;
  std::string kind;         // "veth", "bridge"; empty for hardware
  std::string mac_address;  // lower case with colons; empty if it has none
  std::uint32_t mtu = 0;
  int ports = 0;  // links that have this one as their master
};

// NOT_FOUND if there is none of that name.
StatusOr<Link> ReadLink(const std::string& name);
// The main table's unicast routes by one link, without those that follow from its addresses.
StatusOr<std::vector<NetworkRoute>> ReadRoutes(const Link& link);
// Up, with that MTU.
Status BringUp(const Link& link, std::uint32_t mtu);
Status DeleteLink(const Link& link);
// All that arrives at `from` leaves by `to`, and nothing of it reaches the host's own stack. Replaces what an earlier
// call set up for `from`.
Status Redirect(const Link& from, const Link& to);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_LINK_H_
