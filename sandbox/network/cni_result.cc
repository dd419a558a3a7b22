#include "sandbox/network/cni_result.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "sandbox/network/ip_address.h"
#include "sandbox/network/json.h"

namespace husk::sandbox {
namespace {

constexpr std::size_t kMaximumEntries = 64;  // of interfaces, addresses of one, and each list of DNS
constexpr std::size_t kMaximumRoutes = 1024;
constexpr std::size_t kLongestWord = 255;
constexpr std::uint32_t kMainTable = 254;

// As the kernel takes one.
bool IsInterfaceName(const std::string& name) {
  constexpr std::size_t kLongest = 15;
  return !name.empty() && name.size() <= kLongest && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~' && c != '/' && c != ':'; });
}

// An address, which for a link's own may name the link: fe80::1%eth0.
bool IsDnsServer(const std::string& text) {
  const auto zone = text.find('%');
  return ParseIpAddress(text.substr(0, zone)) && (zone == std::string::npos || IsInterfaceName(text.substr(zone + 1)));
}

Status Wrong(const std::string& fault, const std::string& value = "") {
  return absl::InternalError(
      absl::StrCat("the CNI result has ", fault, value.empty() ? "" : ": ", absl::CHexEscape(value.substr(0, 100))));
}

std::vector<std::string> StringsOf(const nlohmann::json& object, const char* key) {
  std::vector<std::string> strings;
  for (const auto& entry : ArrayMember(object, key)) {
    if (entry.is_string()) strings.push_back(entry.get<std::string>());
  }
  return strings;
}

std::optional<std::uint32_t> NumberMember(const nlohmann::json& object, const char* key) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_number_unsigned()) return std::nullopt;
  const auto number = object[key].get<std::uint64_t>();
  if (number > std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
  return static_cast<std::uint32_t>(number);
}

bool IsWord(const std::string& text) {
  return !text.empty() && text.size() <= kLongestWord && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c));
  });
}

// While it is put together: an interface with the gateways of its addresses.
struct Draft {
  NetworkInterface interface;
  std::vector<IpNetwork> networks;
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
    HUSK_RETURN_IF_ERROR(ReadDns());
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
      if (std::any_of(drafts_.begin(), drafts_.end(),
                      [&](const Draft& other) { return other.interface.name == name; })) {
        return Wrong("an interface twice", name);
      }
      if (drafts_.size() == kMaximumEntries) return Wrong("too many interfaces");
      draft.interface.mac_address = StringMember(entry, "mac");
      if (!draft.interface.mac_address.empty() && !ParseMacAddress(draft.interface.mac_address)) {
        return Wrong("a MAC address that is none", draft.interface.mac_address);
      }
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
    const auto network = ParseIpNetwork(text);
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
    if (draft.networks.size() == kMaximumEntries) return Wrong("too many addresses");
    draft.interface.addresses.push_back(text);
    draft.networks.push_back(*network);
    const std::string gateway = StringMember(ip, "gateway");
    if (gateway.empty()) return absl::OkStatus();
    const auto parsed = ParseIpAddress(gateway);
    if (!parsed || parsed->family != network->address.family) return Wrong("a gateway that is no address", gateway);
    draft.gateways.emplace(parsed->family, gateway);
    return absl::OkStatus();
  }

  Status ReadRoute(const nlohmann::json& entry) {
    NetworkRoute route{.destination = StringMember(entry, "dst"), .gateway = StringMember(entry, "gw")};
    if (const auto priority = NumberMember(entry, "priority")) route.metric = *priority;
    const auto table = NumberMember(entry, "table");
    if (table.value_or(0) != 0 && *table != kMainTable) {
      return Wrong("a route in a table of its own, which a VM does not get", route.destination);
    }
    const auto destination = ParseIpNetwork(route.destination);
    if (!destination) return Wrong("a route to something that is no network", route.destination);
    Draft* draft = &drafts_[primary_];
    if (route.gateway.empty()) {
      const auto gateway = draft->gateways.find(destination->address.family);
      if (gateway != draft->gateways.end()) route.gateway = gateway->second;
    } else {
      const auto gateway = ParseIpAddress(route.gateway);
      if (!gateway || gateway->family != destination->address.family) {
        return Wrong("a route by a gateway that is no address of its family", route.gateway);
      }
      for (Draft& candidate : drafts_) {
        const bool reaches = std::any_of(candidate.networks.begin(), candidate.networks.end(),
                                         [&](const IpNetwork& network) { return network.Contains(*gateway); });
        if (reaches) {
          draft = &candidate;
          break;
        }
      }
    }
    if (draft->interface.routes.size() == kMaximumRoutes) return Wrong("too many routes");
    AddRoutes({route}, draft->interface);
    return absl::OkStatus();
  }

  Status ReadDns() {
    const nlohmann::json& dns = ObjectMember(result_, "dns");
    for (const std::string& server : StringsOf(dns, "nameservers")) {
      if (!IsDnsServer(server)) return Wrong("a DNS server that is no address", server);
      converted_.dns_servers.push_back(server);
    }
    converted_.dns_searches = StringsOf(dns, "search");
    // What resolv.conf calls a domain is a search list of one.
    const std::string domain = StringMember(dns, "domain");
    if (converted_.dns_searches.empty() && !domain.empty()) converted_.dns_searches.push_back(domain);
    converted_.dns_options = StringsOf(dns, "options");
    for (const auto* list : {&converted_.dns_servers, &converted_.dns_searches, &converted_.dns_options}) {
      if (list->size() > kMaximumEntries) return Wrong("too much in its \"dns\"");
      for (const std::string& word : *list) {
        if (!IsWord(word)) return Wrong("something in its \"dns\" that is no word of resolv.conf", word);
      }
    }
    return absl::OkStatus();
  }

  NetworkResult Finish() {
    std::rotate(drafts_.begin(), drafts_.begin() + static_cast<std::ptrdiff_t>(primary_),
                drafts_.begin() + static_cast<std::ptrdiff_t>(primary_) + 1);
    for (Draft& draft : drafts_) {
      auto& addresses = draft.interface.addresses;
      std::stable_partition(addresses.begin(), addresses.end(),
                            [](const std::string& address) { return address.find(':') == std::string::npos; });
      converted_.interfaces.push_back(std::move(draft.interface));
    }
    converted_.cni_result_json = WriteJson(result_);
    return std::move(converted_);
  }

  const nlohmann::json& result_;
  const std::string& namespace_path_;
  const std::string& interface_name_;
  std::vector<Draft> drafts_;
  std::vector<std::optional<std::size_t>> places_;  // of the result's interfaces in drafts_, if they are inside
  std::size_t primary_ = 0;
  NetworkResult converted_;
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
