#include "sandbox/network/pod_links.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace husk::sandbox {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Link Veth(const std::string& name, int index) {
  return {.index = index,
          .name = name,
          .kind = "veth",
          .mac_address = "02:00:00:00:00:0" + std::to_string(index),
          .mtu = 1400,
          .ethernet = true,
          .up = true};
}
const Link kLoopback{.index = 1, .name = "lo", .mtu = 65536, .loopback = true, .up = true};

std::vector<std::string> Names(const NetworkResult& result) {
  std::vector<std::string> names;
  for (const NetworkInterface& interface : result.interfaces) names.push_back(interface.name);
  return names;
}

NetworkResult Primary() {
  return {.interfaces = {{.name = "eth0", .mac_address = "02:00:00:00:00:99", .addresses = {"10.0.0.2/24"}}}};
}

std::string Fault(const std::vector<Link>& links, NetworkResult result) {
  const Status merged = MergeLinks(links, result);
  return std::string(merged.message());
}

TEST(PodLinks, TheLinkKnowsItsMacAndMtu) {
  NetworkResult result = Primary();
  ASSERT_TRUE(MergeLinks({kLoopback, Veth("eth0", 2)}, result).ok());
  EXPECT_THAT(Names(result), ElementsAre("eth0"));
  EXPECT_EQ(result.interfaces[0].mac_address, "02:00:00:00:00:02");
  EXPECT_EQ(result.interfaces[0].mtu, 1400U);
  EXPECT_THAT(result.interfaces[0].addresses, ElementsAre("10.0.0.2/24"));
}

TEST(PodLinks, FurtherLinksBecomeInterfaces) {
  Link down = Veth("net3", 5);
  down.up = false;
  Link member = Veth("net4", 6);
  member.has_master = true;
  Link tap = Veth("tap2", 7);
  tap.kind = "tun";
  NetworkResult result = Primary();
  ASSERT_TRUE(
      MergeLinks({kLoopback, Veth("net1", 2), Veth("eth0", 3), Veth("net2", 4), down, member, tap}, result).ok());
  EXPECT_THAT(Names(result), ElementsAre("eth0", "net1", "net2")) << "the result's first, then as they were made";
  EXPECT_EQ(result.interfaces[1].mac_address, "02:00:00:00:00:02");
}

TEST(PodLinks, TheLoopbackGoesUnlessItHasAnAddressOfItsOwn) {
  NetworkResult result = Primary();
  result.interfaces.push_back({.name = "lo", .addresses = {"127.0.0.1/8", "::1/128"}});
  ASSERT_TRUE(MergeLinks({kLoopback, Veth("eth0", 2)}, result).ok());
  EXPECT_THAT(Names(result), ElementsAre("eth0"));

  result.interfaces.push_back({.name = "lo", .addresses = {"192.0.2.1/32"}});
  EXPECT_THAT(Fault({kLoopback, Veth("eth0", 2)}, result), HasSubstr("interface lo of the pod is the loopback"));
}

TEST(PodLinks, WhatAVmCannotHaveIsRefusedByName) {
  EXPECT_THAT(Fault({kLoopback}, Primary()), HasSubstr("interface eth0 of the pod is in the CNI result, but not in"));
  Link tunnel = Veth("eth0", 2);
  tunnel.ethernet = false;
  EXPECT_THAT(Fault({tunnel}, Primary()), HasSubstr("interface eth0 of the pod carries no Ethernet"));
  Link vlan = Veth("eth0.5", 3);
  vlan.stacked = true;
  EXPECT_THAT(Fault({Veth("eth0", 2), vlan}, Primary()), HasSubstr("interface eth0.5 of the pod lies on another one"));
  std::vector<Link> many;
  for (int i = 0; i < 9; ++i) many.push_back(Veth("eth" + std::to_string(i), i + 2));
  EXPECT_THAT(Fault(many, Primary()), HasSubstr("the pod has 9 interfaces"));
}

TEST(PodLinks, ARouteBelongsWhereTheNamespaceHasIt) {
  NetworkResult result = Primary();
  result.interfaces[0].routes = {{.destination = "0.0.0.0/0", .gateway = "10.0.0.1"},
                                 {.destination = "192.0.2.0/24", .gateway = "10.0.0.1"},
                                 {.destination = "198.51.100.0/24", .gateway = "10.0.0.1"}};
  result.interfaces.push_back({.name = "net1"});
  MergeRoutes({{{.destination = "0.0.0.0/0", .gateway = "10.0.0.1"}},
               {{.destination = "192.0.2.0/24", .gateway = "10.9.0.1"}, {.destination = "0.0.0.0/0", .metric = 9}}},
              result);
  ASSERT_EQ(result.interfaces[0].routes.size(), 2U);
  EXPECT_EQ(result.interfaces[0].routes[0].destination, "0.0.0.0/0");
  EXPECT_EQ(result.interfaces[0].routes[1].destination, "198.51.100.0/24") << "the result's alone";
  ASSERT_EQ(result.interfaces[1].routes.size(), 2U);
  EXPECT_EQ(result.interfaces[1].routes[1].gateway, "10.9.0.1");
}

TEST(PodLinks, NamesInErrorsAreEscaped) {
  NetworkResult result = Primary();
  result.interfaces[0].name = "a\x7f\x01";
  EXPECT_THAT(Fault({kLoopback}, result), HasSubstr("interface a\\x7f\\x01 of the pod"));
  EXPECT_THAT(Fault({kLoopback, Veth("eth0", 2), Veth("net\xff", 3)}, Primary()),
              HasSubstr("interface net\\xff of the pod has a name that cannot be printed"));
}

}  // namespace
}  // namespace husk::sandbox
