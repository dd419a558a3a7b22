// "HOST:PORT" of the configuration.
#ifndef HUSK_CRI_CONFIG_NETWORK_ADDRESS_H_
#define HUSK_CRI_CONFIG_NETWORK_ADDRESS_H_

#include <cstdint>
#include <string>

#include "agent/common/status.h"

namespace husk::cri {

struct NetworkAddress {
  std::string host;  // an IPv4 or IPv6 address, without brackets
  std::uint16_t port = 0;
};

// "127.0.0.1:9477", "[::1]:9477". Names are refused: what they mean may change. INVALID_ARGUMENT says what is expected.
StatusOr<NetworkAddress> ParseNetworkAddress(const std::string& text);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONFIG_NETWORK_ADDRESS_H_
