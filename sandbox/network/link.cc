#include "sandbox/network/link.h"

#include <linux/if_ether.h>
#include <linux/pkt_sched.h>
#include <linux/tc_act/tc_mirred.h>
#include <net/if.h>
#include <netlink/cache.h>
#include <netlink/netlink.h>
#include <netlink/route/act/mirred.h>
#include <netlink/route/action.h>
#include <netlink/route/classifier.h>
#include <netlink/route/cls/u32.h>
#include <netlink/route/link.h>
#include <netlink/route/qdisc.h>
#include <netlink/route/route.h>
#include <netlink/route/tc.h>
#include <netlink/socket.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

struct Freer {
  void operator()(nl_sock* socket) const { nl_socket_free(socket); }
  void operator()(nl_cache* cache) const { nl_cache_free(cache); }
  void operator()(rtnl_link* link) const { rtnl_link_put(link); }
  void operator()(rtnl_qdisc* qdisc) const { rtnl_qdisc_put(qdisc); }
  void operator()(rtnl_cls* classifier) const { rtnl_cls_put(classifier); }
  void operator()(rtnl_act* action) const { rtnl_act_put(action); }
};
template <typename T>
using Owned = std::unique_ptr<T, Freer>;

Status NetlinkStatus(int error, const std::string& doing) {
  if (error >= 0) return absl::OkStatus();
  const std::string message = absl::StrCat(doing, ": ", nl_geterror(error));
  if (error == -NLE_OBJ_NOTFOUND || error == -NLE_NODEV) return absl::NotFoundError(message);
  if (error == -NLE_EXIST) return absl::AlreadyExistsError(message);
  return absl::InternalError(message);
}

StatusOr<Owned<nl_sock>> Connect() {
  Owned<nl_sock> socket(nl_socket_alloc());
  if (socket == nullptr) return absl::ResourceExhaustedError("allocate a netlink socket");
  HUSK_RETURN_IF_ERROR(NetlinkStatus(nl_connect(socket.get(), NETLINK_ROUTE), "connect to rtnetlink"));
  return socket;
}

template <typename T>
StatusOr<Owned<T>> Allocated(T* object) {
  if (object == nullptr) return absl::ResourceExhaustedError("allocate a netlink object");
  return Owned<T>(object);
}

std::string AddressText(nl_addr* address) {
  if (address == nullptr || nl_addr_get_len(address) == 0) return "";
  std::array<char, 128> text{};
  return nl_addr2str(address, text.data(), text.size());
}

// libnl writes a host's address without its prefix length and a default route's as nothing.
std::string DestinationText(nl_addr* address) {
  std::string text = AddressText(address);
  if (text.empty()) return nl_addr_get_family(address) == AF_INET6 ? "::/0" : "0.0.0.0/0";
  if (text.find('/') == std::string::npos) absl::StrAppend(&text, "/", nl_addr_get_prefixlen(address));
  return text;
}

constexpr std::uint32_t kIngressHandle = TC_H_MAKE(TC_H_INGRESS, 0);

Status ReplaceIngress(nl_sock* socket, const Link& link) {
  HUSK_ASSIGN_OR_RETURN(const auto qdisc, Allocated(rtnl_qdisc_alloc()));
  rtnl_tc_set_ifindex(TC_CAST(qdisc.get()), link.index);
  rtnl_tc_set_parent(TC_CAST(qdisc.get()), TC_H_INGRESS);
  rtnl_tc_set_handle(TC_CAST(qdisc.get()), kIngressHandle);
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_tc_set_kind(TC_CAST(qdisc.get()), "ingress"), "ingress qdisc"));
  // One may be left from a tap that died with its huskd; its filters go with it. If there is none this fails.
  (void)rtnl_qdisc_delete(socket, qdisc.get());
  return NetlinkStatus(rtnl_qdisc_add(socket, qdisc.get(), NLM_F_CREATE | NLM_F_EXCL), "add an ingress qdisc");
}

}  // namespace

StatusOr<Link> ReadLink(const std::string& name) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, Connect());
  rtnl_link* found = nullptr;
  HUSK_RETURN_IF_ERROR(
      NetlinkStatus(rtnl_link_get_kernel(socket.get(), 0, name.c_str(), &found), absl::StrCat("find link ", name)));
  const Owned<rtnl_link> owner(found);
  Link link;
  link.index = rtnl_link_get_ifindex(found);
  const char* kind = rtnl_link_get_type(found);
  link.kind = kind == nullptr ? "" : kind;
  link.mac_address = AddressText(rtnl_link_get_addr(found));
  link.mtu = rtnl_link_get_mtu(found);

  nl_cache* links = nullptr;
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_link_alloc_cache(socket.get(), AF_UNSPEC, &links), "list links"));
  const Owned<nl_cache> links_owner(links);
  for (nl_object* object = nl_cache_get_first(links); object != nullptr; object = nl_cache_get_next(object)) {
    if (rtnl_link_get_master(reinterpret_cast<rtnl_link*>(object)) == link.index) ++link.ports;
  }
  return link;
}

StatusOr<std::vector<NetworkRoute>> ReadRoutes(const Link& link) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, Connect());
  nl_cache* cache = nullptr;
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_route_alloc_cache(socket.get(), AF_UNSPEC, 0, &cache), "list routes"));
  const Owned<nl_cache> owner(cache);
  std::vector<NetworkRoute> routes;
  for (nl_object* object = nl_cache_get_first(cache); object != nullptr; object = nl_cache_get_next(object)) {
    auto* route = reinterpret_cast<rtnl_route*>(object);
    if (rtnl_route_get_table(route) != RT_TABLE_MAIN || rtnl_route_get_type(route) != RTN_UNICAST ||
        rtnl_route_get_protocol(route) == RTPROT_KERNEL || rtnl_route_get_nnexthops(route) != 1) {
      continue;
    }
    rtnl_nexthop* hop = rtnl_route_nexthop_n(route, 0);
    if (rtnl_route_nh_get_ifindex(hop) != link.index) continue;
    routes.push_back({DestinationText(rtnl_route_get_dst(route)), AddressText(rtnl_route_nh_get_gateway(hop))});
  }
  return routes;
}

Status BringUp(const Link& link, std::uint32_t mtu) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, Connect());
  HUSK_ASSIGN_OR_RETURN(const auto which, Allocated(rtnl_link_alloc()));
  HUSK_ASSIGN_OR_RETURN(const auto change, Allocated(rtnl_link_alloc()));
  rtnl_link_set_ifindex(which.get(), link.index);
  rtnl_link_set_ifindex(change.get(), link.index);
  rtnl_link_set_mtu(change.get(), mtu);
  rtnl_link_set_flags(change.get(), IFF_UP);
  return NetlinkStatus(rtnl_link_change(socket.get(), which.get(), change.get(), 0), "bring a link up");
}

Status DeleteLink(const Link& link) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, Connect());
  HUSK_ASSIGN_OR_RETURN(const auto which, Allocated(rtnl_link_alloc()));
  rtnl_link_set_ifindex(which.get(), link.index);
  return NetlinkStatus(rtnl_link_delete(socket.get(), which.get()), "delete a link");
}

// u32 with a key that matches everything: every kernel with traffic control has it, matchall is often left out.
Status Redirect(const Link& from, const Link& to) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, Connect());
  HUSK_RETURN_IF_ERROR(ReplaceIngress(socket.get(), from));

  HUSK_ASSIGN_OR_RETURN(const auto action, Allocated(rtnl_act_alloc()));
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_tc_set_kind(TC_CAST(action.get()), "mirred"), "mirred action"));
  rtnl_mirred_set_action(action.get(), TCA_EGRESS_REDIR);
  rtnl_mirred_set_ifindex(action.get(), static_cast<std::uint32_t>(to.index));
  rtnl_mirred_set_policy(action.get(), TC_ACT_STOLEN);

  HUSK_ASSIGN_OR_RETURN(const auto filter, Allocated(rtnl_cls_alloc()));
  rtnl_tc_set_ifindex(TC_CAST(filter.get()), from.index);
  rtnl_tc_set_parent(TC_CAST(filter.get()), kIngressHandle);
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_tc_set_kind(TC_CAST(filter.get()), "u32"), "u32 filter"));
  rtnl_cls_set_protocol(filter.get(), ETH_P_ALL);
  rtnl_cls_set_prio(filter.get(), 1);
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_u32_add_key_uint32(filter.get(), 0, 0, 0, 0), "u32 filter"));
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_u32_set_cls_terminal(filter.get()), "u32 filter"));
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_u32_add_action(filter.get(), action.get()), "u32 filter"));
  return NetlinkStatus(rtnl_cls_add(socket.get(), filter.get(), NLM_F_CREATE), "add a redirect");
}

}  // namespace husk::sandbox
