// The program itself, run by the kernel on frames of every kind (no interface is made).
#include "sandbox/network/source_filter.h"

#include <gtest/gtest.h>
#include <linux/pkt_cls.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "sandbox/network/bpf_program.h"
#include "sandbox/network/ip_address.h"

namespace husk::sandbox {
namespace {

constexpr char kMac[] = "0200000000a1";
constexpr char kOtherMac[] = "0200000000b2";
constexpr char kBridge[] = "0200000000ff";

std::string Hex(const std::string& text) {
  return absl::HexStringToBytes(absl::StrReplaceAll(text, {{" ", ""}}));
}
std::string Ip(const std::string& text) {
  return ParseIpAddress(text)->bytes;
}

std::string Ethernet(const std::string& source, const std::string& type, const std::string& payload) {
  return Hex(absl::StrCat(kBridge, source, type)) + payload;
}
std::string Ipv4(const std::string& source, const std::string& destination, const std::string& protocol = "11",
                 const std::string& payload = std::string(8, '\0')) {
  return Hex(absl::StrCat("45000024 00000000 40", protocol, "0000")) + Ip(source) + Ip(destination) + payload;
}
std::string Ipv4Frame(const std::string& source, const std::string& destination, const std::string& mac = kMac) {
  return Ethernet(mac, "0800", Ipv4(source, destination));
}
std::string ArpFrame(const std::string& sender_mac, const std::string& sender, const std::string& mac = kMac) {
  return Ethernet(mac, "0806",
                  Hex("0001080006040001") + Hex(sender_mac) + Ip(sender) + std::string(6, '\0') + Ip("10.0.0.1"));
}
std::string Ipv6Frame(const std::string& source, const std::string& destination, const std::string& next = "11",
                      const std::string& payload = std::string(8, '\0'), const std::string& mac = kMac) {
  return Ethernet(mac, "86dd", Hex(absl::StrCat("60000000 0008", next, "ff")) + Ip(source) + Ip(destination) + payload);
}
std::string Advertisement(const std::string& target) {
  return Hex("88000000 60000000") + Ip(target) + Hex(absl::StrCat("0201", kOtherMac));
}

class SourceFilterTest : public testing::Test {
 protected:
  void SetUp() override {
    Load({.name = "eth0",
          .mac_address = "02:00:00:00:00:a1",
          .addresses = {"10.0.0.2/24", "10.0.0.9/32", "fd00::2/64"}});
  }
  void Load(const NetworkInterface& interface) {
    const auto program = SourceFilter(interface);
    ASSERT_TRUE(program.ok()) << program.status();
    auto loaded = LoadClassifier(*program);
    if (absl::IsPermissionDenied(loaded.status())) GTEST_SKIP() << loaded.status();
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    loaded_ = *std::move(loaded);
  }

  [[nodiscard]] bool Passes(std::string frame) const {
    bpf_attr attributes{};
    attributes.test.prog_fd = static_cast<std::uint32_t>(loaded_.get());
    attributes.test.data_in = reinterpret_cast<std::uint64_t>(frame.data());
    attributes.test.data_size_in = static_cast<std::uint32_t>(frame.size());
    if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof(attributes)) != 0) {
      ADD_FAILURE() << "BPF_PROG_TEST_RUN: errno " << errno;
      return false;
    }
    EXPECT_TRUE(attributes.test.retval == TC_ACT_SHOT || attributes.test.retval == static_cast<unsigned>(TC_ACT_UNSPEC))
        << attributes.test.retval;
    return attributes.test.retval != TC_ACT_SHOT;
  }

  UniqueFd loaded_;
};

TEST_F(SourceFilterTest, Ipv4GoesOutFromTheOwnAddressesOnly) {
  EXPECT_TRUE(Passes(Ipv4Frame("10.0.0.2", "8.8.8.8")));
  EXPECT_TRUE(Passes(Ipv4Frame("10.0.0.9", "224.0.0.1")));
  EXPECT_FALSE(Passes(Ipv4Frame("10.0.0.3", "8.8.8.8")));
  EXPECT_FALSE(Passes(Ipv4Frame("127.0.0.1", "10.0.0.1")));
  EXPECT_FALSE(Passes(Ipv4Frame("10.0.0.2", "8.8.8.8", kOtherMac)));
  EXPECT_FALSE(Passes(Ipv4Frame("255.255.255.255", "10.0.0.1")));
}

TEST_F(SourceFilterTest, NothingGoesToTheNodesLoopback) {
  EXPECT_FALSE(Passes(Ipv4Frame("10.0.0.2", "127.0.0.1")));
  EXPECT_FALSE(Passes(Ipv4Frame("10.0.0.2", "127.255.255.254")));
  EXPECT_TRUE(Passes(Ipv4Frame("10.0.0.2", "126.0.0.1")));
  EXPECT_TRUE(Passes(Ipv4Frame("10.0.0.2", "128.0.0.1")));
  EXPECT_FALSE(Passes(Ipv6Frame("fd00::2", "::1")));
}

TEST_F(SourceFilterTest, ADhcpClientMayAskWithoutAnAddress) {
  const auto dhcp = [](const std::string& protocol, const std::string& ports) {
    return Ethernet(kMac, "0800", Ipv4("0.0.0.0", "255.255.255.255", protocol, Hex(ports + "00080000")));
  };
  EXPECT_TRUE(Passes(dhcp("11", "00440043")));
  EXPECT_FALSE(Passes(dhcp("11", "00430044"))) << "a server's answer";
  EXPECT_FALSE(Passes(dhcp("06", "00440043")));
  EXPECT_FALSE(Passes(Ipv4Frame("0.0.0.0", "10.0.0.1")));
}

TEST_F(SourceFilterTest, ArpNamesItsTrueSender) {
  EXPECT_TRUE(Passes(ArpFrame(kMac, "10.0.0.2")));
  EXPECT_TRUE(Passes(ArpFrame(kMac, "0.0.0.0"))) << "a probe";
  EXPECT_FALSE(Passes(ArpFrame(kMac, "10.0.0.1"))) << "the gateway's";
  EXPECT_FALSE(Passes(ArpFrame(kOtherMac, "10.0.0.2")));
  EXPECT_FALSE(Passes(ArpFrame(kMac, "10.0.0.2", kOtherMac)));
}

TEST_F(SourceFilterTest, Ipv6GoesOutFromTheOwnAddressesOnly) {
  EXPECT_TRUE(Passes(Ipv6Frame("fd00::2", "fd00::1")));
  EXPECT_TRUE(Passes(Ipv6Frame("fe80::ff:fe00:a1", "ff02::1"))) << "the link-local address of the MAC";
  EXPECT_FALSE(Passes(Ipv6Frame("fd00::3", "fd00::1")));
  EXPECT_FALSE(Passes(Ipv6Frame("fe80::ff:fe00:b2", "fd00::1")));
  EXPECT_FALSE(Passes(Ipv6Frame("::", "fd00::1")));
  EXPECT_FALSE(Passes(Ipv6Frame("fd00::2", "fd00::1", "11", std::string(8, '\0'), kOtherMac)));
}

TEST_F(SourceFilterTest, NeighbourDiscoveryWorksAndDoesNotLie) {
  const std::string solicitation = Hex("87000000 00000000") + Ip("fd00::1");
  EXPECT_TRUE(Passes(Ipv6Frame("fd00::2", "ff02::1:ff00:1", "3a", solicitation)));
  EXPECT_TRUE(Passes(Ipv6Frame("::", "ff02::1:ff00:2", "3a", solicitation))) << "duplicate address detection";
  EXPECT_TRUE(Passes(Ipv6Frame("fd00::2", "fd00::1", "3a", Advertisement("fd00::2"))));
  EXPECT_TRUE(Passes(Ipv6Frame("fd00::2", "fd00::1", "3a", Advertisement("fe80::ff:fe00:a1"))));
  EXPECT_FALSE(Passes(Ipv6Frame("fd00::2", "ff02::1", "3a", Advertisement("fd00::1")))) << "the gateway's address";
  EXPECT_FALSE(Passes(Ipv6Frame("fe80::ff:fe00:a1", "ff02::1", "3a", Hex("86000000 40000708 00000000 00000000"))))
      << "a router's advertisement";
  EXPECT_FALSE(Passes(Ipv6Frame("fd00::2", "fd00::1", "3a", Hex("89000000 00000000"))));
  EXPECT_TRUE(Passes(Ipv6Frame("fd00::2", "fd00::1", "3a", Hex("80000000 00010001")))) << "ping";
}

TEST_F(SourceFilterTest, HeadersHideNoMessage) {
  const std::string report = Hex("3a00050200000000 8f00000000000000");
  EXPECT_TRUE(Passes(Ipv6Frame("fe80::ff:fe00:a1", "ff02::16", "00", report)));
  EXPECT_TRUE(Passes(Ipv6Frame("::", "ff02::16", "00", report)));
  EXPECT_FALSE(Passes(Ipv6Frame("fd00::2", "ff02::1", "00", Hex("3a00050200000000") + Advertisement("fd00::1"))));
  EXPECT_FALSE(Passes(Ipv6Frame("fd00::2", "ff02::1", "00", Hex("3a01050200000000 8f00000000000000"))));
  for (const char* header : {"2b", "3c"}) {
    EXPECT_FALSE(Passes(Ipv6Frame("fd00::2", "ff02::1", header, Hex("3a00000000000000") + Advertisement("fd00::1"))));
  }
}

TEST_F(SourceFilterTest, OtherAndShortFramesAreDropped) {
  EXPECT_FALSE(Passes(Ethernet(kMac, "88cc", std::string(46, '\0')))) << "LLDP";
  EXPECT_FALSE(Passes(Ethernet(kMac, "0026", std::string(46, '\0')))) << "a length, as of the spanning tree";
  EXPECT_FALSE(Passes(Ethernet(kMac, "8100", Hex("00050800") + Ipv4("10.0.0.2", "8.8.8.8")))) << "a VLAN's tag";
  // Of IP the kernel runs no trial with less than a header.
  for (const std::string& part : {ArpFrame(kMac, "10.0.0.2").substr(0, 41),
                                  Ipv6Frame("fd00::2", "fd00::1", "3a", Advertisement("fd00::2")).substr(0, 77),
                                  Ipv6Frame("fd00::2", "fd00::1", "3a", "")}) {
    EXPECT_FALSE(Passes(part)) << part.size();
  }
}

TEST_F(SourceFilterTest, WithoutAddressesOnlyTheMacCounts) {
  Load({.name = "net1", .mac_address = "02:00:00:00:00:a1"});
  EXPECT_TRUE(Passes(Ipv4Frame("192.0.2.7", "8.8.8.8")));
  EXPECT_TRUE(Passes(Ethernet(kMac, "88cc", std::string(46, '\0'))));
  EXPECT_FALSE(Passes(Ipv4Frame("192.0.2.7", "8.8.8.8", kOtherMac)));
}

TEST(SourceFilterInput, WhatIsNoAddressIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(SourceFilter({.name = "eth0", .mac_address = "02:00"}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      SourceFilter({.name = "eth0", .mac_address = "02:00:00:00:00:a1", .addresses = {"10.0.0.2"}}).status()));
  NetworkInterface many{.name = "eth0", .mac_address = "02:00:00:00:00:a1"};
  many.addresses.assign(65, "10.0.0.2/24");
  EXPECT_TRUE(absl::IsInvalidArgument(SourceFilter(many).status()));
}

TEST(SourceFilterInput, TheMostAddressesMakeAProgramThatTheKernelTakes) {
  NetworkInterface many{.name = "eth0", .mac_address = "02:00:00:00:00:a1"};
  for (int i = 0; i < 64; ++i) many.addresses.push_back(absl::StrCat("fd00::", absl::Hex(i), "/64"));
  const auto loaded = LoadClassifier(*SourceFilter(many));
  if (absl::IsPermissionDenied(loaded.status())) GTEST_SKIP() << loaded.status();
  EXPECT_TRUE(loaded.ok()) << loaded.status();
}

}  // namespace
}  // namespace husk::sandbox
