#include "cri/config/network_address.h"

#include <arpa/inet.h>

#include <charconv>

#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"

namespace husk::cri {

StatusOr<NetworkAddress> ParseNetworkAddress(const std::string& text) {
  const Status wrong = absl::InvalidArgumentError(absl::StrCat(
      "expected an address and a port, such as 127.0.0.1:9477 or [::1]:9477, not \"", Printable(text, 100), "\""));
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || text.find('\0') != std::string::npos) return wrong;
  NetworkAddress address{.host = text.substr(0, colon)};
  const bool brackets = address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']';
  if (brackets) address.host = address.host.substr(1, address.host.size() - 2);
  in6_addr parsed{};
  if (inet_pton(brackets ? AF_INET6 : AF_INET, address.host.c_str(), &parsed) != 1) return wrong;
  const char* const begin = text.data() + colon + 1;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(begin, end, address.port);
  if (error != std::errc() || stopped != end || begin == end) return wrong;
  return address;
}

}  // namespace husk::cri
