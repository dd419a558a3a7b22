// What the files that speak rtnetlink by libnl share. Included by none of their headers.
#ifndef HUSK_SANDBOX_NETWORK_NETLINK_H_
#define HUSK_SANDBOX_NETWORK_NETLINK_H_

#include <netlink/cache.h>
#include <netlink/netlink.h>
#include <netlink/route/action.h>
#include <netlink/route/addr.h>
#include <netlink/route/classifier.h>
#include <netlink/route/link.h>
#include <netlink/route/qdisc.h>
#include <netlink/socket.h>

#include <memory>
#include <string>

#include "agent/common/status.h"

namespace husk::sandbox {

struct NetlinkFreer {
  void operator()(nl_sock* socket) const { nl_socket_free(socket); }
  void operator()(nl_cache* cache) const { nl_cache_free(cache); }
  void operator()(nl_msg* message) const { nlmsg_free(message); }
  void operator()(rtnl_link* link) const { rtnl_link_put(link); }
  void operator()(rtnl_qdisc* qdisc) const { rtnl_qdisc_put(qdisc); }
  void operator()(rtnl_cls* classifier) const { rtnl_cls_put(classifier); }
  void operator()(rtnl_act* action) const { rtnl_act_put(action); }
};
template <typename T>
using NetlinkOwned = std::unique_ptr<T, NetlinkFreer>;

// OK if `error` (libnl's, negative) is none.
Status NetlinkStatus(int error, const std::string& doing);
// In the network namespace of the calling thread.
StatusOr<NetlinkOwned<nl_sock>> ConnectNetlink();

template <typename T>
StatusOr<NetlinkOwned<T>> NetlinkAllocated(T* object) {
  if (object == nullptr) return absl::ResourceExhaustedError("allocate a netlink object");
  return NetlinkOwned<T>(object);
}

// As libnl writes it; empty if there is none.
std::string NetlinkAddressText(nl_addr* address);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_NETLINK_H_
