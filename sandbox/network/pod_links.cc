#include "sandbox/network/pod_links.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "sandbox/network/cni_result.h"
#include "sandbox/network/ip_address.h"

namespace husk::sandbox {
namespace {

constexpr std::size_t kMaximumInterfaces = 8;

Status Unusable(const std::string& name, const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat("interface ", absl::CHexEscape(name), " of the pod ", why));
}

bool IsLoopbackAddress(const std::string& text) {
  const auto network = ParseIpNetwork(text);
  if (!network) return false;
  const std::string& bytes = network->address.bytes;
  return bytes.size() == 4 ? bytes[0] == 127 : bytes == std::string(15, '\0') + '\x01';
}

Status CheckLoopback(const NetworkInterface& interface) {
  for (const std::string& address : interface.addresses) {
    if (!IsLoopbackAddress(address)) {
      return Unusable(interface.name, absl::StrCat("is the loopback, which cannot have ", absl::CHexEscape(address)));
    }
  }
  return absl::OkStatus();
}

Status CheckLink(const Link& link) {
  // The kernel takes nearly any byte.
  if (!std::all_of(link.name.begin(), link.name.end(), [](char c) { return c > ' ' && c <= '~'; })) {
    return Unusable(link.name, "has a name that cannot be printed");
  }
  if (!link.ethernet) return Unusable(link.name, "carries no Ethernet, as a virtual machine's card does");
  if (link.stacked) return Unusable(link.name, "lies on another one of the pod, whose frames the virtual machine gets");
  return absl::OkStatus();
}

bool IsFurtherInterface(const Link& link) {
  // Tunnels that every namespace has are down. What has a master is seen through it. A tap is our own.
  return link.ethernet && link.up && !link.loopback && !link.has_master && link.kind != "tun";
}

}  // namespace

Status MergeLinks(const std::vector<Link>& links, NetworkResult& result) {
  std::vector<NetworkInterface> merged;
  for (NetworkInterface& interface : result.interfaces) {
    const auto link =
        std::find_if(links.begin(), links.end(), [&](const Link& other) { return other.name == interface.name; });
    if (link == links.end()) return Unusable(interface.name, "is in the CNI result, but not in the namespace");
    if (link->loopback) {
      HUSK_RETURN_IF_ERROR(CheckLoopback(interface));
      continue;
    }
    if (link->has_master && interface.addresses.empty()) continue;
    HUSK_RETURN_IF_ERROR(CheckLink(*link));
    interface.mac_address = link->mac_address;
    interface.mtu = link->mtu;
    merged.push_back(std::move(interface));
  }
  for (const Link& link : links) {
    const bool told = std::any_of(result.interfaces.begin(), result.interfaces.end(),
                                  [&](const NetworkInterface& other) { return other.name == link.name; }) ||
                      std::any_of(merged.begin(), merged.end(),
                                  [&](const NetworkInterface& other) { return other.name == link.name; });
    if (told || !IsFurtherInterface(link)) continue;
    HUSK_RETURN_IF_ERROR(CheckLink(link));
    merged.push_back({.name = link.name, .mac_address = link.mac_address, .mtu = link.mtu});
  }
  if (merged.empty()) return absl::FailedPreconditionError("the pod has no interface but the loopback");
  if (merged.size() > kMaximumInterfaces) {
    return absl::FailedPreconditionError(
        absl::StrCat("the pod has ", merged.size(), " interfaces, and may have ", kMaximumInterfaces));
  }
  result.interfaces = std::move(merged);
  return absl::OkStatus();
}

void MergeRoutes(const std::vector<std::vector<NetworkRoute>>& present, NetworkResult& result) {
  const auto leads = [&](std::size_t place, const std::string& destination) {
    return std::any_of(present[place].begin(), present[place].end(),
                       [&](const NetworkRoute& route) { return route.destination == destination; });
  };
  for (std::size_t place = 0; place < result.interfaces.size(); ++place) {
    std::erase_if(result.interfaces[place].routes, [&](const NetworkRoute& route) {
      if (leads(place, route.destination)) return false;
      for (std::size_t other = 0; other < present.size(); ++other) {
        if (leads(other, route.destination)) return true;
      }
      return false;
    });
    AddRoutes(present[place], result.interfaces[place]);
  }
}

Status CompleteFromNamespace(NetworkResult& result) {
  HUSK_ASSIGN_OR_RETURN(const auto links, ListLinks());
  std::vector<std::string> told;
  told.reserve(result.interfaces.size());
  for (const NetworkInterface& interface : result.interfaces) told.push_back(interface.name);
  HUSK_RETURN_IF_ERROR(MergeLinks(links, result));
  std::vector<std::vector<NetworkRoute>> routes;
  for (NetworkInterface& interface : result.interfaces) {
    HUSK_ASSIGN_OR_RETURN(const Link link, ReadLink(interface.name));
    if (std::find(told.begin(), told.end(), interface.name) == told.end()) {
      HUSK_ASSIGN_OR_RETURN(interface.addresses, ReadAddresses(link));
    }
    HUSK_ASSIGN_OR_RETURN(routes.emplace_back(), ReadRoutes(link));
    HUSK_ASSIGN_OR_RETURN(interface.neighbours, ReadNeighbours(link));
  }
  MergeRoutes(routes, result);
  return absl::OkStatus();
}

}  // namespace husk::sandbox
