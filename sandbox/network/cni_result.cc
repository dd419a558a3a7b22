#include "sandbox/network/cni_result.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "sandbox/network/json.h"

namespace husk::sandbox {
namespace {

struct Address {
  int family = AF_UNSPEC;
  std::array<unsigned char, 16> bytes{};
};

std::optional<Address> ParseAddress(const std::string& text) {
  Address address;
  for (const int family : {AF_INET, AF_INET6}) {
    address.family = family;
    if (inet_pton(family, text.c_str(), address.bytes.data()) == 1) return address;
  }
  return std::nullopt;
}

// As the kernel takes one.
bool IsInterfaceName(const std::string& name) {
  constexpr std::size_t kLongest = 15;
  return !name.empty() && name.size() <= kLongest && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~' && c != '/' && c != ':'; });
}

bool IsMacAddress(const std::string& text) {
  constexpr std::size_t kLength = 17;
  if (text.size() != kLength) return false;
  for (std::size_t i = 0; i < kLength; ++i) {
    const bool good = i % 3 == 2 ? text[i] == ':' : absl::ascii_isxdigit(static_cast<unsigned char>(text[i]));
    if (!good) return false;
  }
  return true;
}

// An address, which for a link's own may name the link: fe80::1%eth0.
bool IsDnsServer(const std::string& text) {
  const auto zone = text.find('%');
  return ParseAddress(text.substr(0, zone)) && (zone == std::string::npos || IsInterfaceName(text.substr(zone + 1)));
}

struct Network {
  Address address;
  unsigned prefix = 0;

  [[nodiscard]] bool Contains(const Address& other) const {
    if (other.family != address.family) return false;
    for (unsigned bit = 0; bit < prefix; ++bit) {
      const unsigned mask = 0x80U >> (bit % 8);
      if (((address.bytes[bit / 8] ^ other.bytes[bit / 8]) & mask) != 0) return false;
    }
    return true;
  }
};

std::optional<Network> ParseNetwork(const std::string& text) {
  const auto slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  const auto address = ParseAddress(text.substr(0, slash));
  unsigned prefix = 0;
  if (!address || !absl::SimpleAtoi(text.substr(slash + 1), &prefix)) return std::nullopt;
  if (prefix > (address->family == AF_INET ? 32U : 128U)) return std::nullopt;
  return Network{*address, prefix};
}

Status Wrong(const std::string& fault, const std::string& value = "") {
  return absl::InternalError(
      absl::StrCat("the CNI result has ", fault, value.empty() ? "" : ": ", absl::CHexEscape(value.substr(0, 100))));
}

// While it is put together: an interface with the gateways of its addresses.
struct Draft {
  NetworkInterface interface;
  std::vector<Network> networks;
  std::map<int, std::string> gateways;  // by address family
};

class Converter {
 public:
  Converter(const nlohmann::json& result, const std::string& namespace_path, const std::string& interface_name)
      : result_(result), namespace_path_(namespace_path), interface_name_(interface_name) {}

  StatusOr<NetworkResult> Convert() {
    HUSK_RETURN_IF_ERROR(ReadInterfaces());
    for (const auto& ip : ArrayMember(result_, "ips")) HUSK_RETURN_IF_ERROR(ReadAddress(ip));
    if (std::none_of(drafts_.begin(), drafts_.end(), [](const Draft& draft) { return !draft.networks.empty(); })) {
      return Wrong("no address in the pod's namespace");
    }
    for (const auto& route : ArrayMember(result_, "routes")) HUSK_RETURN_IF_ERROR(ReadRoute(route));
    return Finish();
  }

 private:
  Status ReadInterfaces() {
    for (const auto& entry : ArrayMember(result_, "interfaces")) {
      if (StringMember(entry, "sandbox") != namespace_path_) {
        places_.emplace_back(std::nullopt);
        continue;
      }
      Draft draft;
      draft.interface.name = StringMember(entry, "name");
      const std::string& name = draft.interface.name;
      if (!IsInterfaceName(name)) return Wrong("an interface without a proper name", name);
      const std::string mac = StringMember(entry, "mac");
      if (!mac.empty() && !IsMacAddress(mac)) return Wrong("a MAC address that is none", mac);
      draft.interface.mac_address = mac;
      places_.emplace_back(drafts_.size());
      drafts_.push_back(std::move(draft));
    }
    if (drafts_.empty()) {
      // Plugins of older versions list none, or only those outside.
      drafts_.emplace_back().interface.name = interface_name_;
    }
    primary_ = 0;
    for (std::size_t i = 0; i < drafts_.size(); ++i) {
      if (drafts_[i].interface.name == interface_name_) primary_ = i;
    }
    return absl::OkStatus();
  }

  Status ReadAddress(const nlohmann::json& ip) {
    const std::string text = StringMember(ip, "address");
    const auto network = ParseNetwork(text);
    if (!network) return Wrong("something else where an address with its prefix belongs", text);
    std::size_t place = primary_;
    if (ip.contains("interface") && !ip["interface"].is_null()) {
      const auto& index = ip["interface"];
      if (!index.is_number_integer() || index < 0 || index >= places_.size()) {
        return Wrong("an address of an interface that is not listed", text);
      }
      const auto found = places_[index.get<std::size_t>()];
      if (!found) return absl::OkStatus();  // an address of the host's end
      place = *found;
    }
    Draft& draft = drafts_[place];
    draft.interface.addresses.push_back(text);
    draft.networks.push_back(*network);
    const std::string gateway = StringMember(ip, "gateway");
    if (gateway.empty()) return absl::OkStatus();
    const auto parsed = ParseAddress(gateway);
    if (!parsed || parsed->family != network->address.family) return Wrong("a gateway that is no address", gateway);
    draft.gateways.emplace(parsed->family, gateway);
    return absl::OkStatus();
  }

  Status ReadRoute(const nlohmann::json& entry) {
    NetworkRoute route{StringMember(entry, "dst"), StringMember(entry, "gw")};
    const auto destination = ParseNetwork(route.destination);
    if (!destination) return Wrong("a route to something that is no network", route.destination);
    Draft* draft = &drafts_[primary_];
    if (route.gateway.empty()) {
      const auto gateway = draft->gateways.find(destination->address.family);
      if (gateway != draft->gateways.end()) route.gateway = gateway->second;
    } else {
      const auto gateway = ParseAddress(route.gateway);
      if (!gateway) return Wrong("a route by a gateway that is no address", route.gateway);
      for (Draft& candidate : drafts_) {
        const bool reaches = std::any_of(candidate.networks.begin(), candidate.networks.end(),
                                         [&](const Network& network) { return network.Contains(*gateway); });
        if (reaches) {
          draft = &candidate;
          break;
        }
      }
    }
    AddRoutes({route}, draft->interface);
    return absl::OkStatus();
  }

  StatusOr<NetworkResult> Finish() {
    NetworkResult converted;
    std::rotate(drafts_.begin(), drafts_.begin() + static_cast<std::ptrdiff_t>(primary_),
                drafts_.begin() + static_cast<std::ptrdiff_t>(primary_) + 1);
    for (Draft& draft : drafts_) {
      auto& addresses = draft.interface.addresses;
      std::stable_partition(addresses.begin(), addresses.end(),
                            [](const std::string& address) { return address.find(':') == std::string::npos; });
      converted.interfaces.push_back(std::move(draft.interface));
    }
    for (const auto& server : ArrayMember(ObjectMember(result_, "dns"), "nameservers")) {
      if (!server.is_string()) continue;
      const auto text = server.get<std::string>();
      if (!IsDnsServer(text)) return Wrong("a DNS server that is no address", text);
      converted.dns_servers.push_back(text);
    }
    converted.cni_result_json = WriteJson(result_);
    return converted;
  }

  const nlohmann::json& result_;
  const std::string& namespace_path_;
  const std::string& interface_name_;
  std::vector<Draft> drafts_;
  std::vector<std::optional<std::size_t>> places_;  // of the result's interfaces in drafts_, if they are inside
  std::size_t primary_ = 0;
};

}  // namespace

StatusOr<NetworkResult> ConvertResult(const nlohmann::json& result, const std::string& namespace_path,
                                      const std::string& interface_name) {
  return Converter(result, namespace_path, interface_name).Convert();
}

void AddRoutes(const std::vector<NetworkRoute>& routes, NetworkInterface& interface) {
  for (const NetworkRoute& route : routes) {
    const bool known = std::any_of(interface.routes.begin(), interface.routes.end(), [&](const NetworkRoute& other) {
      return other.destination == route.destination && other.gateway == route.gateway;
    });
    if (!known) interface.routes.push_back(route);
  }
  std::stable_partition(interface.routes.begin(), interface.routes.end(),
                        [](const NetworkRoute& route) { return route.gateway.empty(); });
}

}  // namespace husk::sandbox
