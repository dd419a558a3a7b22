#include "sandbox/network/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"

namespace husk::sandbox {

bool IpNetwork::Contains(const IpAddress& other) const {
  if (other.family != address.family) return false;
  for (unsigned bit = 0; bit < prefix; ++bit) {
    const auto difference =
        static_cast<unsigned char>(address.bytes[bit / 8]) ^ static_cast<unsigned char>(other.bytes[bit / 8]);
    if ((difference & (0x80 >> (bit % 8))) != 0) return false;
  }
  return true;
}

std::optional<IpAddress> ParseIpAddress(const std::string& text) {
  if (text.find('\0') != std::string::npos) return std::nullopt;
  std::array<char, 16> bytes{};
  if (inet_pton(AF_INET, text.c_str(), bytes.data()) == 1) return IpAddress{AF_INET, {bytes.data(), 4}};
  if (inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1) return IpAddress{AF_INET6, {bytes.data(), 16}};
  return std::nullopt;
}

std::optional<IpNetwork> ParseIpNetwork(const std::string& text) {
  const auto slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  const std::string length = text.substr(slash + 1);
  const bool digits = !length.empty() && length.size() <= 3 && std::all_of(length.begin(), length.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
  auto address = ParseIpAddress(text.substr(0, slash));
  unsigned prefix = 0;
  if (!address || !digits || !absl::SimpleAtoi(length, &prefix) || prefix > 8 * address->bytes.size()) {
    return std::nullopt;
  }
  return IpNetwork{*std::move(address), prefix};
}

std::optional<std::string> ParseMacAddress(const std::string& text) {
  constexpr std::size_t kLength = 17;
  if (text.size() != kLength) return std::nullopt;
  std::string digits;
  for (std::size_t i = 0; i < kLength; ++i) {
    const bool separator = i % 3 == 2;
    if (separator ? text[i] != ':' : !absl::ascii_isxdigit(static_cast<unsigned char>(text[i]))) return std::nullopt;
    if (!separator) digits += text[i];
  }
  return absl::HexStringToBytes(digits);
}

std::string LinkLocalAddress(const std::string& mac) {
  std::string address("\xFE\x80\0\0\0\0\0\0", 8);
  address += static_cast<char>(static_cast<unsigned char>(mac[0]) ^ 2U);
  address += mac.substr(1, 2);
  address += "\xFF\xFE";
  address += mac.substr(3, 3);
  return address;
}

}  // namespace husk::sandbox
