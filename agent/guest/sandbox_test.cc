#include "agent/guest/sandbox.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "agent/guest/network.h"
#include "agent/guest/scsi_disk.h"

namespace husk::agent {
namespace {

TEST(SandboxTest, WritesThePodsFiles) {
  v1::SandboxConfig config;
  config.set_hostname("pod");
  EXPECT_EQ(ResolvConf(config), "");
  config.add_dns_servers("10.0.0.10");
  config.add_dns_servers("fd00::a");
  config.add_dns_searches("a.example");
  config.add_dns_searches("b.example");
  config.add_dns_options("ndots:5");
  EXPECT_EQ(ResolvConf(config),
            "search a.example b.example\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n");
  EXPECT_NE(Hosts(config).find("127.0.1.1\tpod\n"), std::string::npos);
  config.add_interfaces()->add_addresses("10.1.2.3/24");
  config.mutable_interfaces(0)->add_addresses("fd00::3/64");
  config.add_interfaces()->add_addresses("10.9.9.9/24");
  EXPECT_EQ(Hosts(config),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tpod\nfd00::3\tpod\n")
      << "both families of the interface that the pod is known by";
}

TEST(SandboxTest, SysctlsStayBelowProcSys) {
  EXPECT_EQ(*SysctlPath("net.ipv4.ip_forward"), "/proc/sys/net/ipv4/ip_forward");
  EXPECT_EQ(*SysctlPath("net/ipv4/conf/eth0.1/rp_filter"), "/proc/sys/net/ipv4/conf/eth0.1/rp_filter");
  EXPECT_EQ(*SysctlPath("net.ipv4.conf.eth0/1.rp_filter"), "/proc/sys/net/ipv4/conf/eth0.1/rp_filter");
  for (const char* name : {"", ".", "a..b", "net/../../etc/passwd", "net.//.etc", "/etc/passwd", "net.a b", "net."}) {
    EXPECT_FALSE(SysctlPath(name).ok()) << name;
  }
}

TEST(NetworkTest, ParsesAddresses) {
  const auto v4 = ParsePrefix("10.1.2.3/24");
  ASSERT_TRUE(v4.ok());
  EXPECT_EQ(v4->family, AF_INET);
  EXPECT_EQ(v4->length, 24);
  EXPECT_EQ(v4->bytes[3], 3);
  const auto v6 = ParsePrefix("fd00::1");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->family, AF_INET6);
  EXPECT_EQ(v6->length, 128);
  EXPECT_EQ(ParsePrefix("::/0")->length, 0);
  for (const char* text : {"", "10.1.2", "10.1.2.3/33", "10.1.2.3/", "10.1.2.3/-1", "::/129", "host/24"}) {
    EXPECT_FALSE(ParsePrefix(text).ok()) << text;
  }
}

TEST(NetworkTest, ParsesMacs) {
  EXPECT_EQ((*ParseMac("52:54:00:Aa:bb:0c"))[5], 0x0c);
  for (const char* text : {"", "52:54:00:aa:bb", "52:54:00:aa:bb:cc:dd", "5:54:00:aa:bb:cc", "52:54:00:aa:bb:zz"}) {
    EXPECT_FALSE(ParseMac(text).ok()) << text;
  }
}

TEST(ScsiDiskTest, FindsTheDiskOfALun) {
  std::string pattern = std::filesystem::temp_directory_path() / "husk-scsi-XXXXXX";
  const std::filesystem::path sysfs = mkdtemp(pattern.data());
  const auto add = [&](const std::string& address, const std::string& disk) {
    std::filesystem::create_directories(sysfs / "class/scsi_device" / address / "device/block" / disk);
  };
  add("0:0:0:1", "sda");
  add("0:0:0:11", "sdb");
  add("0:0:1:2", "sdc");
  add("0:0:0:16684", "sdd");  // 300 by flat addressing
  std::filesystem::create_directories(sysfs / "class/scsi_device/0:0:0:5/device");
  EXPECT_EQ(*FindScsiDisk(1, sysfs), "/dev/sda");
  EXPECT_EQ(*FindScsiDisk(11, sysfs), "/dev/sdb");
  EXPECT_EQ(*FindScsiDisk(300, sysfs), "/dev/sdd");
  EXPECT_EQ(FindScsiDisk(2, sysfs).status().code(), absl::StatusCode::kNotFound) << "another target";
  EXPECT_EQ(FindScsiDisk(5, sysfs).status().code(), absl::StatusCode::kNotFound) << "not probed yet";
  std::filesystem::remove_all(sysfs);
}

}  // namespace
}  // namespace husk::agent
