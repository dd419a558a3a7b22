#include "sandbox/network/redirect.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <netlink/msg.h>
#include <netlink/route/act/mirred.h>
#include <netlink/route/cls/u32.h>
#include <netlink/route/tc.h>

#include <cstdint>

#include "sandbox/network/netlink.h"

namespace husk::sandbox {
namespace {

constexpr std::uint32_t kIngressHandle = TC_H_MAKE(TC_H_INGRESS, 0);
// The order of the filters at one ingress.
constexpr std::uint16_t kFilterPriority = 1;
constexpr std::uint16_t kRedirectPriority = 2;

Status ReplaceIngress(nl_sock* socket, const Link& link) {
  HUSK_ASSIGN_OR_RETURN(const auto qdisc, NetlinkAllocated(rtnl_qdisc_alloc()));
  rtnl_tc_set_ifindex(TC_CAST(qdisc.get()), link.index);
  rtnl_tc_set_parent(TC_CAST(qdisc.get()), TC_H_INGRESS);
  rtnl_tc_set_handle(TC_CAST(qdisc.get()), kIngressHandle);
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_tc_set_kind(TC_CAST(qdisc.get()), "ingress"), "ingress qdisc"));
  // One may be left from a tap that died with its huskd; its filters go with it. If there is none this fails.
  (void)rtnl_qdisc_delete(socket, qdisc.get());
  return NetlinkStatus(rtnl_qdisc_add(socket, qdisc.get(), NLM_F_CREATE | NLM_F_EXCL), "add an ingress qdisc");
}

// libnl knows no such classifier.
Status AddBpfFilter(nl_sock* socket, const Link& from, int program) {
  HUSK_ASSIGN_OR_RETURN(auto message, NetlinkAllocated(nlmsg_alloc_simple(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL)));
  tcmsg header{};
  header.tcm_family = AF_UNSPEC;
  header.tcm_ifindex = from.index;
  header.tcm_parent = kIngressHandle;
  header.tcm_info = TC_H_MAKE(std::uint32_t{kFilterPriority} << 16U, htons(ETH_P_ALL));
  int failed = nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
  if (failed == 0) failed = nla_put_string(message.get(), TCA_KIND, "bpf");
  nlattr* options = nla_nest_start(message.get(), TCA_OPTIONS);
  if (failed == 0) failed = nla_put_u32(message.get(), TCA_BPF_FD, static_cast<std::uint32_t>(program));
  if (failed == 0) failed = nla_put_string(message.get(), TCA_BPF_NAME, "husk-sources");
  if (failed == 0) failed = nla_put_u32(message.get(), TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
  if (failed != 0 || options == nullptr) return absl::ResourceExhaustedError("write a netlink message");
  nla_nest_end(message.get(), options);
  // Takes the message over.
  return NetlinkStatus(nl_send_sync(socket, message.release()),
                       "add a bpf filter (network.filter_sources: false does without)");
}

// u32 with a key that matches everything: every kernel with traffic control has it, matchall is often left out.
Status AddRedirect(nl_sock* socket, const Link& from, const Link& to) {
  HUSK_ASSIGN_OR_RETURN(const auto action, NetlinkAllocated(rtnl_act_alloc()));
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_tc_set_kind(TC_CAST(action.get()), "mirred"), "mirred action"));
  rtnl_mirred_set_action(action.get(), TCA_EGRESS_REDIR);
  rtnl_mirred_set_ifindex(action.get(), static_cast<std::uint32_t>(to.index));
  rtnl_mirred_set_policy(action.get(), TC_ACT_STOLEN);

  HUSK_ASSIGN_OR_RETURN(const auto filter, NetlinkAllocated(rtnl_cls_alloc()));
  rtnl_tc_set_ifindex(TC_CAST(filter.get()), from.index);
  rtnl_tc_set_parent(TC_CAST(filter.get()), kIngressHandle);
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_tc_set_kind(TC_CAST(filter.get()), "u32"), "u32 filter"));
  rtnl_cls_set_protocol(filter.get(), ETH_P_ALL);
  rtnl_cls_set_prio(filter.get(), kRedirectPriority);
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_u32_add_key_uint32(filter.get(), 0, 0, 0, 0), "u32 filter"));
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_u32_set_cls_terminal(filter.get()), "u32 filter"));
  HUSK_RETURN_IF_ERROR(NetlinkStatus(rtnl_u32_add_action(filter.get(), action.get()), "u32 filter"));
  return NetlinkStatus(rtnl_cls_add(socket, filter.get(), NLM_F_CREATE), "add a redirect");
}

}  // namespace

Status Redirect(const Link& from, const Link& to, int filter) {
  HUSK_ASSIGN_OR_RETURN(const auto socket, ConnectNetlink());
  HUSK_RETURN_IF_ERROR(ReplaceIngress(socket.get(), from));
  if (filter >= 0) HUSK_RETURN_IF_ERROR(AddBpfFilter(socket.get(), from, filter));
  return AddRedirect(socket.get(), from, to);
}

}  // namespace husk::sandbox
