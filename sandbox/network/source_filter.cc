#include "sandbox/network/source_filter.h"

#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <netinet/in.h>

#include <array>
#include <cstddef>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "sandbox/network/bpf_program.h"
#include "sandbox/network/ip_address.h"

namespace husk::sandbox {
namespace {

constexpr std::size_t kMaximumAddresses = 64;

// Where parts of a frame lie on the program's stack.
constexpr std::int16_t kEthernet = -16;
constexpr std::int16_t kHeader = -72;   // up to 40 bytes: IPv4, ARP or IPv6
constexpr std::int16_t kPayload = -96;  // up to 24 bytes of what follows it

constexpr std::uint8_t kRouterAdvertisement = 134;
constexpr std::uint8_t kNeighbourAdvertisement = 136;
constexpr std::uint8_t kRedirect = 137;
constexpr std::array<std::uint8_t, 3> kListenerReports = {131, 132, 143};

constexpr std::int16_t At(std::int16_t base, int offset) {
  return static_cast<std::int16_t>(base + offset);
}

std::string EtherType(std::uint16_t type) {
  return {static_cast<char>(type >> 8U), static_cast<char>(type & 0xFFU)};
}

class FilterWriter {
 public:
  Status SetIdentity(const NetworkInterface& interface) {
    const auto mac = ParseMacAddress(interface.mac_address);
    if (!mac) return Wrong("a MAC address", interface.mac_address);
    mac_ = *mac;
    if (interface.addresses.size() > kMaximumAddresses) {
      return absl::InvalidArgumentError(absl::StrCat("more than ", kMaximumAddresses, " addresses"));
    }
    for (const std::string& text : interface.addresses) {
      const auto network = ParseIpNetwork(text);
      if (!network) return Wrong("an address with its prefix", text);
      (network->address.family == AF_INET ? ipv4_ : ipv6_).push_back(network->address.bytes);
    }
    any_source_ = interface.addresses.empty();
    ipv6_.push_back(LinkLocalAddress(mac_));
    return absl::OkStatus();
  }

  std::vector<bpf_insn> Write() {
    program_.LoadFrame(0, kEthernet, ETH_HLEN, drop_);
    program_.RequireBytes(At(kEthernet, ETH_ALEN), mac_, drop_);
    if (any_source_) {
      program_.Jump(pass_);
    } else {
      // The kernel takes the tag out of the frame, so that what is inside would be looked at here.
      program_.RequireZeroField(offsetof(__sk_buff, vlan_present), drop_);
      Case(ETH_P_IP, [this] { Ipv4(); });
      Case(ETH_P_ARP, [this] { Arp(); });
      Case(ETH_P_IPV6, [this] { Ipv6(); });
    }
    program_.Bind(drop_);
    program_.Return(TC_ACT_SHOT);
    program_.Bind(pass_);
    program_.Return(TC_ACT_UNSPEC);
    return program_.Finish();
  }

 private:
  static Status Wrong(const std::string& what, const std::string& text) {
    return absl::InvalidArgumentError(absl::StrCat("\"", absl::CHexEscape(text.substr(0, 100)), "\" is not ", what));
  }

  // `write` must end every path by a jump: the kernel takes no program with instructions that nothing leads to.
  template <typename Function>
  void Case(std::uint16_t type, Function write) {
    const auto other = program_.NewLabel();
    program_.RequireBytes(At(kEthernet, 2 * ETH_ALEN), EtherType(type), other);
    write();
    program_.Bind(other);
  }

  // Goes to `found` if one of the texts lies there.
  void JumpIfAny(std::int16_t place, const std::vector<std::string>& candidates, BpfProgram::Label found) {
    for (const std::string& candidate : candidates) {
      const auto next = program_.NewLabel();
      program_.RequireBytes(place, candidate, next);
      program_.Jump(found);
      program_.Bind(next);
    }
  }

  void Ipv4() {
    program_.LoadFrame(ETH_HLEN, kHeader, 20, drop_);
    program_.JumpIfByte(At(kHeader, 16), 127, drop_);
    JumpIfAny(At(kHeader, 12), ipv4_, pass_);
    // A DHCP client that has no address yet.
    program_.RequireBytes(At(kHeader, 12), std::string(4, '\0'), drop_);
    program_.RequireByte(kHeader, 0x45, drop_);
    program_.RequireByte(At(kHeader, 9), IPPROTO_UDP, drop_);
    program_.RequireMaskedPair(At(kHeader, 6), 0x1FFF, 0, drop_);  // the first fragment, which has the ports
    program_.LoadFrame(ETH_HLEN + 20, kPayload, 4, drop_);
    program_.RequireBytes(At(kPayload, 2), {"\0\x43", 2}, drop_);
    program_.Jump(pass_);
  }

  void Arp() {
    program_.LoadFrame(ETH_HLEN, kHeader, 28, drop_);
    program_.RequireBytes(kHeader, {"\0\x01\x08\0\x06\x04", 6}, drop_);  // IPv4 over Ethernet
    program_.RequireBytes(At(kHeader, 8), mac_, drop_);
    JumpIfAny(At(kHeader, 14), ipv4_, pass_);
    program_.RequireBytes(At(kHeader, 14), std::string(4, '\0'), drop_);
    program_.Jump(pass_);
  }

  void Ipv6() {
    const auto honest = program_.NewLabel();
    const auto not_loopback = program_.NewLabel();
    program_.LoadFrame(ETH_HLEN, kHeader, 40, drop_);
    program_.RequireBytes(At(kHeader, 24), std::string(15, '\0') + '\x01', not_loopback);
    program_.Jump(drop_);
    program_.Bind(not_loopback);
    JumpIfAny(At(kHeader, 8), ipv6_, honest);
    // From no address: only what looks for duplicates, and what joins groups for it.
    const auto not_icmp = program_.NewLabel();
    program_.RequireBytes(At(kHeader, 8), std::string(16, '\0'), drop_);
    program_.RequireByte(At(kHeader, 6), IPPROTO_ICMPV6, not_icmp);
    Icmpv6();
    program_.Bind(not_icmp);
    program_.RequireByte(At(kHeader, 6), IPPROTO_HOPOPTS, drop_);
    GroupMembership();

    program_.Bind(honest);
    const auto has_options = program_.NewLabel();
    const auto no_icmp = program_.NewLabel();
    program_.JumpIfByte(At(kHeader, 6), IPPROTO_HOPOPTS, has_options);
    program_.JumpIfByte(At(kHeader, 6), IPPROTO_ROUTING, drop_);
    program_.JumpIfByte(At(kHeader, 6), IPPROTO_DSTOPTS, drop_);
    program_.RequireByte(At(kHeader, 6), IPPROTO_ICMPV6, no_icmp);
    Icmpv6();
    program_.Bind(no_icmp);
    program_.Jump(pass_);
    program_.Bind(has_options);
    GroupMembership();
  }

  void Icmpv6() {
    const auto other = program_.NewLabel();
    program_.LoadFrame(ETH_HLEN + 40, kPayload, 1, drop_);
    program_.JumpIfByte(kPayload, kRouterAdvertisement, drop_);
    program_.JumpIfByte(kPayload, kRedirect, drop_);
    program_.RequireByte(kPayload, kNeighbourAdvertisement, other);
    program_.LoadFrame(ETH_HLEN + 40, kPayload, 24, drop_);
    JumpIfAny(At(kPayload, 8), ipv6_, pass_);
    program_.Jump(drop_);
    program_.Bind(other);
    program_.Jump(pass_);
  }

  // Multicast listeners' reports, which alone have options for every hop: eight bytes of them, then ICMPv6.
  void GroupMembership() {
    program_.LoadFrame(ETH_HLEN + 40, kPayload, 10, drop_);
    program_.RequireBytes(kPayload, {"\x3A\0", 2}, drop_);
    for (const std::uint8_t type : kListenerReports) program_.JumpIfByte(At(kPayload, 8), type, pass_);
    program_.Jump(drop_);
  }

  BpfProgram program_;
  const BpfProgram::Label drop_ = program_.NewLabel();
  const BpfProgram::Label pass_ = program_.NewLabel();
  std::string mac_;
  std::vector<std::string> ipv4_;  // the bytes of addresses
  std::vector<std::string> ipv6_;
  bool any_source_ = false;
};

}  // namespace

StatusOr<std::vector<bpf_insn>> SourceFilter(const NetworkInterface& interface) {
  FilterWriter writer;
  HUSK_RETURN_IF_ERROR(writer.SetIdentity(interface));
  return writer.Write();
}

}  // namespace husk::sandbox
