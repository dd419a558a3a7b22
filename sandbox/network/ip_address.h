// IP and MAC addresses as text and as bytes. Pure functions, for input of any kind.
#ifndef HUSK_SANDBOX_NETWORK_IP_ADDRESS_H_
#define HUSK_SANDBOX_NETWORK_IP_ADDRESS_H_

#include <optional>
#include <string>

namespace husk::sandbox {

struct IpAddress {
  int family = 0;     // AF_INET, AF_INET6
  std::string bytes;  // 4 or 16, in the order of the network
};

struct IpNetwork {
  IpAddress address;
  unsigned prefix = 0;  // bits

  // Whether the other address has the same first bits.
  [[nodiscard]] bool Contains(const IpAddress& other) const;
};

std::optional<IpAddress> ParseIpAddress(const std::string& text);
// "192.0.2.1/24"
std::optional<IpNetwork> ParseIpNetwork(const std::string& text);
// "02:00:00:00:00:01": its six bytes.
std::optional<std::string> ParseMacAddress(const std::string& text);
// The link-local address that a host with this MAC (of six bytes) gives itself: 16 bytes.
std::string LinkLocalAddress(const std::string& mac);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_IP_ADDRESS_H_
