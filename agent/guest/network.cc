#include "agent/guest/network.h"

#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/guest/files.h"
#include "agent/guest/rtnetlink.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

Status SetLinkFlags(RouteSocket& socket, int index, unsigned flags, unsigned mask, const std::string& doing) {
  ifinfomsg link{};
  link.ifi_family = AF_UNSPEC;
  link.ifi_index = index;
  link.ifi_flags = flags;
  link.ifi_change = mask;
  return socket.Call(NetlinkMessage(RTM_NEWLINK, 0, link), doing);
}

// The names of virtio-net interfaces, in the order of the devices behind them.
std::vector<std::string> VirtioInterfaces() {
  std::vector<std::pair<std::string, std::string>> found;  // device, name
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/net", error)) {
    const auto driver = std::filesystem::read_symlink(entry.path() / "device/driver", error);
    if (error || driver.filename() != "virtio_net") continue;
    // .../0000:00:03.0/virtio2 without the last part, whose number has no leading zeros.
    const auto device = std::filesystem::canonical(entry.path() / "device", error).parent_path();
    found.emplace_back(device.string(), entry.path().filename().string());
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> names;
  names.reserve(found.size());
  for (auto& [device, name] : found) names.push_back(std::move(name));
  return names;
}

Status AddAddress(RouteSocket& socket, int index, const std::string& text) {
  HUSK_ASSIGN_OR_RETURN(const IpPrefix address, ParsePrefix(text));
  ifaddrmsg fixed{};
  fixed.ifa_family = static_cast<std::uint8_t>(address.family);
  fixed.ifa_prefixlen = address.length;
  fixed.ifa_index = static_cast<std::uint32_t>(index);
  fixed.ifa_flags = IFA_F_NODAD;
  NetlinkMessage message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, fixed);
  message.Attribute(IFA_LOCAL, address.bytes.data(), address.size)
      .Attribute(IFA_ADDRESS, address.bytes.data(), address.size);
  return socket.Call(message, absl::StrCat("add address ", text));
}

Status AddNeighbour(RouteSocket& socket, int index, const v1::Neighbour& neighbour) {
  HUSK_ASSIGN_OR_RETURN(const IpPrefix address, ParsePrefix(neighbour.address()));
  HUSK_ASSIGN_OR_RETURN(const auto mac, ParseMac(neighbour.mac_address()));
  ndmsg fixed{};
  fixed.ndm_family = static_cast<std::uint8_t>(address.family);
  fixed.ndm_ifindex = index;
  fixed.ndm_state = NUD_PERMANENT;
  NetlinkMessage message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, fixed);
  message.Attribute(NDA_DST, address.bytes.data(), address.size).Attribute(NDA_LLADDR, mac.data(), mac.size());
  return socket.Call(message, absl::StrCat("add neighbour ", neighbour.address()));
}

Status AddRoute(RouteSocket& socket, int index, const v1::Route& route) {
  HUSK_ASSIGN_OR_RETURN(const IpPrefix destination, ParsePrefix(route.destination()));
  rtmsg fixed{};
  fixed.rtm_family = static_cast<std::uint8_t>(destination.family);
  fixed.rtm_dst_len = destination.length;
  fixed.rtm_table = RT_TABLE_MAIN;
  fixed.rtm_protocol = RTPROT_STATIC;
  fixed.rtm_type = RTN_UNICAST;
  const bool on_link = route.gateway().empty();
  fixed.rtm_scope = on_link && destination.family == AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  IpPrefix gateway;
  if (!on_link) {
    HUSK_ASSIGN_OR_RETURN(gateway, ParsePrefix(route.gateway()));
    if (gateway.family != destination.family) {
      return absl::InvalidArgumentError(
          absl::StrCat("route ", route.destination(), ": the gateway ", route.gateway(), " is of another family"));
    }
  }
  IpPrefix source;
  if (!route.source().empty()) {
    HUSK_ASSIGN_OR_RETURN(source, ParsePrefix(route.source()));
  }
  const auto call = [&](unsigned flags) {
    fixed.rtm_flags = flags;
    NetlinkMessage message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, fixed);
    message.Attribute(RTA_OIF, static_cast<std::uint32_t>(index));
    if (destination.length > 0) message.Attribute(RTA_DST, destination.bytes.data(), destination.size);
    if (!on_link) message.Attribute(RTA_GATEWAY, gateway.bytes.data(), gateway.size);
    if (route.metric() != 0) message.Attribute(RTA_PRIORITY, route.metric());
    if (source.size != 0) message.Attribute(RTA_PREFSRC, source.bytes.data(), source.size);
    return socket.Call(message, absl::StrCat("add route ", route.destination(), " via ", route.gateway()));
  };
  const Status status = call(0);
  // The first one stays, as it does where a plugin adds a second: that of the first interface, or of an earlier try.
  if (absl::IsAlreadyExists(status)) return absl::OkStatus();
  // Some CNI plugins name a gateway outside of every prefix (169.254.1.1 beside a /32).
  return status.ok() || on_link ? status : call(RTNH_F_ONLINK);
}

Status ConfigureInterface(RouteSocket& socket, const std::string& present_name, const v1::Interface& wanted) {
  const int index = static_cast<int>(if_nametoindex(present_name.c_str()));
  if (index == 0) return absl::NotFoundError(absl::StrCat("no interface ", present_name));
  const std::string& name = wanted.name();
  if (name.empty() || name.size() >= IFNAMSIZ || name.find('/') != std::string::npos || name == "." || name == "..") {
    return absl::InvalidArgumentError(absl::StrCat("not an interface's name: ", name));
  }
  // A name and a MAC can be set only while it is down.
  HUSK_RETURN_IF_ERROR(SetLinkFlags(socket, index, 0, IFF_UP, "link down"));
  ifinfomsg link{};
  link.ifi_family = AF_UNSPEC;
  link.ifi_index = index;
  NetlinkMessage message(RTM_NEWLINK, 0, link);
  if (wanted.name() != present_name) {
    message.Attribute(IFLA_IFNAME, wanted.name().c_str(), wanted.name().size() + 1);
  }
  if (!wanted.mac_address().empty()) {
    HUSK_ASSIGN_OR_RETURN(const auto mac, ParseMac(wanted.mac_address()));
    message.Attribute(IFLA_ADDRESS, mac.data(), mac.size());
  }
  if (wanted.mtu() != 0) message.Attribute(IFLA_MTU, wanted.mtu());
  HUSK_RETURN_IF_ERROR(socket.Call(message, "set name, MAC and MTU"));
  // The CNI result says all there is: no router may add to it, and an address derived from its MAC is no duplicate.
  for (const char* setting : {"accept_ra", "accept_dad"}) {
    // A kernel without IPv6 has no such file.
    WriteFile(absl::StrCat("/proc/sys/net/ipv6/conf/", wanted.name(), "/", setting), "0").IgnoreError();
  }
  HUSK_RETURN_IF_ERROR(SetLinkFlags(socket, index, IFF_UP, IFF_UP, "link up"));
  for (const auto& address : wanted.addresses()) HUSK_RETURN_IF_ERROR(AddAddress(socket, index, address));
  for (const auto& neighbour : wanted.neighbours()) HUSK_RETURN_IF_ERROR(AddNeighbour(socket, index, neighbour));
  for (const auto& route : wanted.routes()) HUSK_RETURN_IF_ERROR(AddRoute(socket, index, route));
  return absl::OkStatus();
}

// The present names, of which none stands in the way any more: what shall be called otherwise gives its name up first.
StatusOr<std::vector<std::string>> ClearNames(RouteSocket& socket, const std::vector<std::string>& present,
                                              const std::vector<v1::Interface>& interfaces) {
  std::vector<std::string> names(present.begin(), present.begin() + static_cast<std::ptrdiff_t>(interfaces.size()));
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == interfaces[i].name()) continue;
    const int index = static_cast<int>(if_nametoindex(names[i].c_str()));
    HUSK_RETURN_IF_ERROR(SetLinkFlags(socket, index, 0, IFF_UP, "link down"));
    ifinfomsg link{};
    link.ifi_family = AF_UNSPEC;
    link.ifi_index = index;
    names[i] = absl::StrCat("unnamed", i);
    NetlinkMessage message(RTM_NEWLINK, 0, link);
    message.Attribute(IFLA_IFNAME, names[i].c_str(), names[i].size() + 1);
    HUSK_RETURN_IF_ERROR(socket.Call(message, "clear a name"));
  }
  return names;
}

}  // namespace

StatusOr<IpPrefix> ParsePrefix(const std::string& text) {
  const std::string address = text.substr(0, text.find('/'));
  IpPrefix prefix;
  if (inet_pton(AF_INET, address.c_str(), prefix.bytes.data()) == 1) {
    prefix.family = AF_INET;
    prefix.size = 4;
  } else if (inet_pton(AF_INET6, address.c_str(), prefix.bytes.data()) == 1) {
    prefix.family = AF_INET6;
    prefix.size = 16;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("not an IP address: ", text));
  }
  std::uint32_t length = static_cast<std::uint32_t>(prefix.size * 8);
  const std::uint32_t longest = length;
  if (address.size() < text.size() && (!ParseNumber(text.substr(address.size() + 1), length) || length > longest)) {
    return absl::InvalidArgumentError(absl::StrCat("not an IP prefix: ", text));
  }
  prefix.length = static_cast<std::uint8_t>(length);
  return prefix;
}

StatusOr<std::array<std::uint8_t, 6>> ParseMac(const std::string& text) {
  std::array<std::uint8_t, 6> mac{};
  const std::vector<std::string_view> parts = Split(text, ':');
  bool good = parts.size() == mac.size();
  for (std::size_t i = 0; good && i < mac.size(); ++i) {
    good = parts[i].size() == 2 && ParseNumber(parts[i], mac.at(i), 16);
  }
  if (!good) return absl::InvalidArgumentError(absl::StrCat("not a MAC address: ", text));
  return mac;
}

Status LoopbackUp() {
  HUSK_ASSIGN_OR_RETURN(RouteSocket socket, RouteSocket::Open());
  return SetLinkFlags(socket, static_cast<int>(if_nametoindex("lo")), IFF_UP, IFF_UP, "loopback up");
}

Status ConfigureInterfaces(const std::vector<v1::Interface>& interfaces) {
  HUSK_ASSIGN_OR_RETURN(RouteSocket socket, RouteSocket::Open());
  const std::vector<std::string> present = VirtioInterfaces();
  if (present.size() < interfaces.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat(interfaces.size(), " interfaces are asked for, the VM has ", present.size()));
  }
  HUSK_ASSIGN_OR_RETURN(const auto names, ClearNames(socket, present, interfaces));
  for (std::size_t i = 0; i < interfaces.size(); ++i) {
    HUSK_RETURN_IF_ERROR_DOING(ConfigureInterface(socket, names[i], interfaces[i]),
                               absl::StrCat("interface ", interfaces[i].name()));
  }
  return absl::OkStatus();
}

}  // namespace husk::agent
