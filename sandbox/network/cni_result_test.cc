#include "sandbox/network/cni_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sandbox/network/json.h"

namespace husk::sandbox {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kNamespace[] = "/run/husk/netns/p";

StatusOr<NetworkResult> Convert(const std::string& text) {
  const auto json = ParseJsonObject(text);
  EXPECT_TRUE(json.ok()) << text;
  return ConvertResult(*json, kNamespace, "eth0");
}

TEST(CniResult, KeepsWhatIsInTheNamespaceWithThePrimaryFirst) {
  const auto result = Convert(R"({"cniVersion": "1.0.0",
    "interfaces": [{"name": "br0", "mac": "02:00:00:00:00:01"},
                   {"name": "net1", "mac": "02:00:00:00:00:02", "sandbox": "/run/husk/netns/p"},
                   {"name": "veth1", "sandbox": ""},
                   {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/husk/netns/p"},
                   {"name": "eth0", "sandbox": "/run/husk/netns/other"}],
    "ips": [{"address": "fd00::2/64", "gateway": "fd00::1", "interface": 3},
            {"address": "10.1.0.2/16", "gateway": "10.1.0.1", "interface": 3},
            {"address": "10.2.0.2/16", "interface": 1},
            {"address": "10.9.0.1/16", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.2.0.9"}, {"dst": "::/0"},
               {"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
    "dns": {"nameservers": ["10.1.0.53", 7]}})");
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->interfaces.size(), 2U);
  const NetworkInterface& primary = result->interfaces[0];
  EXPECT_EQ(primary.name, "eth0");
  EXPECT_EQ(primary.mac_address, "02:00:00:00:00:03");
  EXPECT_THAT(primary.addresses, ElementsAre("10.1.0.2/16", "fd00::2/64"));
  ASSERT_EQ(primary.routes.size(), 2U);
  EXPECT_EQ(primary.routes[0].gateway, "10.1.0.1");
  EXPECT_EQ(primary.routes[1].gateway, "fd00::1");
  const NetworkInterface& second = result->interfaces[1];
  EXPECT_EQ(second.name, "net1");
  EXPECT_THAT(second.addresses, ElementsAre("10.2.0.2/16"));
  ASSERT_EQ(second.routes.size(), 1U);
  EXPECT_EQ(second.routes[0].destination, "192.168.0.0/16");
  EXPECT_THAT(result->dns_servers, ElementsAre("10.1.0.53"));
  EXPECT_THAT(result->cni_result_json, HasSubstr("br0"));
}

TEST(CniResult, WithoutInterfacesMeansThePrimaryOne) {
  const auto result = Convert(R"({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.1.0.2/32"}]})");
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->interfaces.size(), 1U);
  EXPECT_EQ(result->interfaces[0].name, "eth0");
  EXPECT_THAT(result->interfaces[0].addresses, ElementsAre("10.1.0.2/32"));
}

TEST(CniResult, OnLinkRoutesComeBeforeThoseThatNeedThem) {
  NetworkInterface interface;
  AddRoutes({{"0.0.0.0/0", "169.254.1.1"}}, interface);
  AddRoutes({{"169.254.1.1/32", ""}, {"0.0.0.0/0", "169.254.1.1"}}, interface);
  ASSERT_EQ(interface.routes.size(), 2U);
  EXPECT_EQ(interface.routes[0].destination, "169.254.1.1/32");
}

TEST(CniResult, ADnsServerMayBeALinksOwnAddress) {
  const auto result = Convert(R"({"ips": [{"address": "10.1.0.2/16"}], "dns": {"nameservers": ["fe80::1%eth0"]}})");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->dns_servers, ElementsAre("fe80::1%eth0"));
}

TEST(CniResult, RefusesWhatContradictsItself) {
  const std::string inside = R"("interfaces": [{"name": "eth0", "sandbox": "/run/husk/netns/p"}])";
  const std::string address = R"("ips": [{"address": "10.1.0.2/16", "interface": 0}])";
  for (const std::string& bad : {
           std::string("{}"),
           std::string(R"({"ips": 5})"),
           std::string(R"({"ips": ["10.1.0.2/16"]})"),
           std::string(R"({"ips": [{"address": "10.1.0.2"}]})"),
           std::string(R"({"ips": [{"address": "10.1.0.2/33"}]})"),
           std::string(R"({"ips": [{"address": "10.1.0.2/-1"}]})"),
           std::string(R"({"ips": [{"address": "host/16"}]})"),
           std::string(R"({"ips": [{"address": "10.1.0.2/16", "interface": 0}]})"),
           std::string(R"({"ips": [{"address": "10.1.0.2/16", "gateway": "fd00::1"}]})"),
           "{" + inside + R"(, "ips": [{"address": "10.1.0.2/16", "interface": 1}]})",
           "{" + inside + R"(, "ips": [{"address": "10.1.0.2/16", "interface": -1}]})",
           "{" + inside + R"(, "ips": [{"address": "10.1.0.2/16", "interface": 1e300}]})",
           "{" + inside + R"(, "ips": [{"address": "10.1.0.2/16", "interface": "0"}]})",
           "{" + inside + "," + address + R"(, "routes": [{"dst": "everywhere"}]})",
           "{" + inside + "," + address + R"(, "routes": [{"dst": "0.0.0.0/0", "gw": "there"}]})",
           "{" + address + R"(, "interfaces": [{"name": "../eth0", "sandbox": "/run/husk/netns/p"}]})",
           "{" + address + R"(, "interfaces": [{"sandbox": "/run/husk/netns/p"}]})",
           "{" + address + R"(, "interfaces": [{"name": "e th", "sandbox": "/run/husk/netns/p"}]})",
           "{" + address + R"(, "interfaces": [{"name": "eth0", "mac": "02:00", "sandbox": "/run/husk/netns/p"}]})",
           "{" + inside + "," + address + R"(, "dns": {"nameservers": ["10.0.0.1\noptions x"]}})",
       }) {
    EXPECT_TRUE(absl::IsInternal(Convert(bad).status())) << bad;
  }
}

}  // namespace
}  // namespace husk::sandbox
