#include "sandbox/network/link.h"

#include <linux/if.h>
#include <linux/if_arp.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "sandbox/network/netlink.h"

namespace husk::sandbox {
namespace {

// libnl writes a host's address without its prefix length.
std::string NetworkText(nl_addr* address) {
  std::string text = NetlinkAddressText(address);
  if (!text.empty() && text.find('/') == std::string::npos) absl::StrAppend(&text, "/", nl_addr_get_prefixlen(address));
  return text;
}

// And a default route's as nothing.
std::string DestinationText(nl_addr* address) {
  std::string text = NetworkText(address);
  if (!text.empty()) return text;
  return nl_addr_get_family(address) == AF_INET6 ? "::/0" : "0.0.0.0/0";
}

Link Describe(rtnl_link* found) {
  Link link;
  link.index = rtnl_link_get_ifindex(found);
  const char* name = rtnl_link_get_name(found);
  link.name = name == nullptr ? "" : name;
  const char* kind = rtnl_link_get_type(found);
  link.kind = kind == nullptr ? "" : kind;
  link.mac_address = NetlinkAddressText(rtnl_link_get_addr(found));
  link.mtu = rtnl_link_get_mtu(found);
  link.ethernet = rtnl_link_get_arptype(found) == ARPHRD_ETHER;
  link.loopback = (rtnl_link_get_flags(found) & IFF_LOOPBACK) != 0;
  link.up = (rtnl_link_get_flags(found) & IFF_UP) != 0;
  link.has_master = rtnl_link_get_master(found) != 0;
  // A veth's other end has a namespace's number beside its index if it is elsewhere.
  int elsewhere = 0;
  const bool in_other_namespace = rtnl_link_get_link_netnsid(found, &elsewhere) == 0;
  link.stacked = rtnl_link_get_link(found) != 0 && !in_other_namespace && link.kind != "veth";
  return link;
}

StatusOr<NetlinkOwned<nl_cache>> LinkCache(nl_sock* socket) {
  nl_cache* links = nullptr;
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_link_alloc_cache(socket, AF_UNSPEC, &links), "list links"));
  return NetlinkOwned<nl_cache>(links);
}

template <typename T, typename Function>
void ForEach(nl_cache* cache, Function function) {
  for (nl_object* object = nl_cache_get_first(cache); object != nullptr; object = nl_cache_get_next(object)) {
    function(reinterpret_cast<T*>(object));
  }
}

bool IsOrdinary(rtnl_route* route) {
  const auto protocol = rtnl_route_get_protocol(route);
  return rtnl_route_get_table(route) == RT_TABLE_MAIN && rtnl_route_get_type(route) == RTN_UNICAST &&
         protocol != RTPROT_KERNEL && protocol != RTPROT_RA && rtnl_route_get_nnexthops(route) == 1;
}

}  // namespace

StatusOr<Link> ReadLink(const std::string& name) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, ConnectNetlink());
  rtnl_link* found = nullptr;
  HUSK_RETURN_IF_ERROR(
      NetlinkStatus(rtnl_link_get_kernel(socket.get(), 0, name.c_str(), &found), absl::StrCat("find link ", name)));
  const NetlinkOwned<rtnl_link> owner(found);
  Link link = Describe(found);
  HUSK_ASSIGN_OR_RETURN(const auto links, LinkCache(socket.get()));
  ForEach<rtnl_link>(links.get(), [&](rtnl_link* other) {
    if (rtnl_link_get_master(other) == link.index) ++link.ports;
  });
  return link;
}

StatusOr<std::vector<Link>> ListLinks() {
  HUSK_ASSIGN_OR_RETURN(const auto socket, ConnectNetlink());
  HUSK_ASSIGN_OR_RETURN(const auto cache, LinkCache(socket.get()));
  std::vector<Link> links;
  ForEach<rtnl_link>(cache.get(), [&](rtnl_link* link) { links.push_back(Describe(link)); });
  std::sort(links.begin(), links.end(), [](const Link& one, const Link& other) { return one.index < other.index; });
  for (Link& link : links) {
    ForEach<rtnl_link>(cache.get(), [&](rtnl_link* other) {
      if (rtnl_link_get_master(other) == link.index) ++link.ports;
    });
  }
  return links;
}

StatusOr<std::vector<std::string>> ReadAddresses(const Link& link) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, ConnectNetlink());
  nl_cache* cache = nullptr;
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_addr_alloc_cache(socket.get(), &cache), "list addresses"));
  const NetlinkOwned<nl_cache> owner(cache);
  std::vector<std::string> addresses;
  ForEach<rtnl_addr>(cache, [&](rtnl_addr* address) {
    const bool ipv6 = rtnl_addr_get_family(address) == AF_INET6;
    if (rtnl_addr_get_ifindex(address) != link.index) return;
    if (ipv6 && rtnl_addr_get_scope(address) == RT_SCOPE_LINK) return;
    addresses.push_back(NetworkText(rtnl_addr_get_local(address)));
  });
  std::stable_partition(addresses.begin(), addresses.end(),
                        [](const std::string& address) { return !absl::StrContains(address, ':'); });
  return addresses;
}

StatusOr<std::vector<NetworkRoute>> ReadRoutes(const Link& link) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, ConnectNetlink());
  nl_cache* cache = nullptr;
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_route_alloc_cache(socket.get(), AF_UNSPEC, 0, &cache), "list routes"));
  const NetlinkOwned<nl_cache> owner(cache);
  std::vector<NetworkRoute> routes;
  ForEach<rtnl_route>(cache, [&](rtnl_route* route) {
    if (!IsOrdinary(route)) return;
    rtnl_nexthop* hop = rtnl_route_nexthop_n(route, 0);
    if (rtnl_route_nh_get_ifindex(hop) != link.index) return;
    routes.push_back({.destination = DestinationText(rtnl_route_get_dst(route)),
                      .gateway = NetlinkAddressText(rtnl_route_nh_get_gateway(hop)),
                      .metric = rtnl_route_get_priority(route),
                      .source = NetlinkAddressText(rtnl_route_get_pref_src(route))});
  });
  return routes;
}

StatusOr<std::vector<NetworkNeighbour>> ReadNeighbours(const Link& link) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, ConnectNetlink());
  nl_cache* cache = nullptr;
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_neigh_alloc_cache(socket.get(), &cache), "list neighbours"));
  const NetlinkOwned<nl_cache> owner(cache);
  std::vector<NetworkNeighbour> neighbours;
  ForEach<rtnl_neigh>(cache, [&](rtnl_neigh* neighbour) {
    const int family = rtnl_neigh_get_family(neighbour);
    if (rtnl_neigh_get_ifindex(neighbour) != link.index || (family != AF_INET && family != AF_INET6)) return;
    if ((rtnl_neigh_get_state(neighbour) & NUD_PERMANENT) == 0) return;
    neighbours.push_back({.address = NetlinkAddressText(rtnl_neigh_get_dst(neighbour)),
                          .mac_address = NetlinkAddressText(rtnl_neigh_get_lladdr(neighbour))});
  });
  return neighbours;
}

Status BringUp(const Link& link, std::uint32_t mtu) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, ConnectNetlink());
  HUSK_ASSIGN_OR_RETURN(const auto which, NetlinkAllocated(rtnl_link_alloc()));
  HUSK_ASSIGN_OR_RETURN(const auto change, NetlinkAllocated(rtnl_link_alloc()));
  rtnl_link_set_ifindex(which.get(), link.index);
  rtnl_link_set_ifindex(change.get(), link.index);
  rtnl_link_set_mtu(change.get(), mtu);
  rtnl_link_set_flags(change.get(), IFF_UP);
  return NetlinkStatus(rtnl_link_change(socket.get(), which.get(), change.get(), 0), "bring a link up");
}

Status DeleteLink(const Link& link) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, ConnectNetlink());
  HUSK_ASSIGN_OR_RETURN(const auto which, NetlinkAllocated(rtnl_link_alloc()));
  rtnl_link_set_ifindex(which.get(), link.index);
  return NetlinkStatus(rtnl_link_delete(socket.get(), which.get()), "delete a link");
}

}  // namespace husk::sandbox
