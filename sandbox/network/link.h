// Links, and the addresses, routes and neighbours that they have, by rtnetlink, in the network namespace of the calling
// thread.
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
  std::string name;
  std::string kind;         // "veth", "bridge"; empty for hardware
  std::string mac_address;  // lower case with colons; empty if it has none
  std::uint32_t mtu = 0;
  int ports = 0;          // links that have this one as their master
  bool ethernet = false;  // its frames are Ethernet's; the loopback's are not
  bool loopback = false;
  bool up = false;
  bool has_master = false;
  // It lies on top of another link of the same namespace, as a VLAN does.
  bool stacked = false;
};

// NOT_FOUND if there is none of that name.
StatusOr<Link> ReadLink(const std::string& name);
// In the order of their indices.
StatusOr<std::vector<Link>> ListLinks();
// CIDR, IPv4 before IPv6, without link-local addresses of IPv6, which follow from the MAC.
StatusOr<std::vector<std::string>> ReadAddresses(const Link& link);
// The main table's unicast routes by one link, without those that follow from its addresses.
StatusOr<std::vector<NetworkRoute>> ReadRoutes(const Link& link);
// The permanent ones.
StatusOr<std::vector<NetworkNeighbour>> ReadNeighbours(const Link& link);
// Up, with that MTU.
Status BringUp(const Link& link, std::uint32_t mtu);
Status DeleteLink(const Link& link);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_LINK_H_
