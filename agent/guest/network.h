// The guest's network interfaces, by rtnetlink.
#ifndef HUSK_AGENT_GUEST_NETWORK_H_
#define HUSK_AGENT_GUEST_NETWORK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// An address of either family with the length of its prefix.
struct IpPrefix {
  int family = 0;  // AF_INET, AF_INET6
  std::array<std::uint8_t, 16> bytes{};
  std::size_t size = 0;  // of the address in bytes
  std::uint8_t length = 0;
};

// "192.0.2.1/24"; without a slash the length is that of one host.
StatusOr<IpPrefix> ParsePrefix(const std::string& text);
// "52:54:00:12:34:56"
StatusOr<std::array<std::uint8_t, 6>> ParseMac(const std::string& text);

Status LoopbackUp();

// Names, MAC, MTU, addresses (without duplicate address detection), neighbours, routes, and up; in the order of the
// VM's virtio-net devices on their bus. May be repeated.
Status ConfigureInterfaces(const std::vector<v1::Interface>& interfaces);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_NETWORK_H_
