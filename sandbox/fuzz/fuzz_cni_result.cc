// A plugin chain's result.
#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <string>

#include "agent/common/fuzz_require.h"
#include "sandbox/network/cni_result.h"
#include "sandbox/network/json.h"

namespace husk::sandbox {
namespace {

constexpr const char* kNamespace = "/run/husk/netns/p";

bool IsPrinted(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

bool IsAddress(const std::string& text) {
  std::array<unsigned char, 16> bytes{};
  return inet_pton(AF_INET, text.c_str(), bytes.data()) == 1 || inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1;
}

void RequireSoundInterface(const NetworkInterface& interface) {
  fuzz::Require(!interface.name.empty() && interface.name.size() <= 15 && IsPrinted(interface.name) &&
                    interface.name.find('/') == std::string::npos,
                "an interface's name is one");
  fuzz::Require(interface.mac_address.size() <= 64 && IsPrinted(interface.mac_address), "a MAC address is text");
  for (const std::string& address : interface.addresses) {
    const std::size_t slash = address.find('/');
    fuzz::Require(slash != std::string::npos && IsAddress(address.substr(0, slash)) && IsPrinted(address),
                  "an address has its prefix: " + address);
  }
  for (const NetworkRoute& route : interface.routes) {
    fuzz::Require(IsAddress(route.destination.substr(0, route.destination.find('/'))) && IsPrinted(route.destination),
                  "a route leads to a network: " + route.destination);
    fuzz::Require(route.gateway.empty() || IsAddress(route.gateway), "a gateway is an address: " + route.gateway);
  }
}

void Run(const std::string& text) {
  const auto json = ParseJsonObject(text);
  if (!json.ok()) return fuzz::RequireSoundError(json.status());
  const auto result = ConvertResult(*json, kNamespace, "eth0");
  if (!result.ok()) return fuzz::RequireSoundError(result.status());
  fuzz::Require(!result->interfaces.empty(), "there is an interface");
  for (const NetworkInterface& interface : result->interfaces) RequireSoundInterface(interface);
  for (const std::string& server : result->dns_servers) {
    fuzz::Require(IsAddress(server.substr(0, server.find('%'))) && IsPrinted(server), "a DNS server is an address");
  }
  for (const auto* words : {&result->dns_searches, &result->dns_options}) {
    for (const std::string& word : *words) fuzz::Require(!word.empty() && IsPrinted(word), "a word of resolv.conf");
  }
  fuzz::Require(ParseJsonObject(result->cni_result_json, 80).ok(), "the result is kept as JSON");
}

}  // namespace
}  // namespace husk::sandbox

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::sandbox::Run(std::string(husk::fuzz::AsText(data, size)));
  return 0;
}
