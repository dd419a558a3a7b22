// The real CNI plugins, a real bridge, and frames that go all the way between the host and the tap's descriptor.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX's
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stop_token>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "agent/common/mount_table.h"
#include "agent/common/subprocess.h"
#include "sandbox/network/cni_network.h"
#include "sandbox/network/namespace.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
using testing::IsEmpty;

Context Soon() {
  return Context::Background().WithTimeout(std::chrono::seconds(120));
}

// A guest of a few lines: owns one address, answers ARP for it and sends every UDP datagram back.
class Guest {
 public:
  Guest(int tap, const std::string& address, const std::string& mac) : tap_(tap) {
    inet_pton(AF_INET, address.substr(0, address.find('/')).c_str(), &address_);
    const std::vector<std::string> bytes = absl::StrSplit(mac, ':');
    for (std::size_t i = 0; i < mac_.size(); ++i) {
      mac_.at(i) = static_cast<std::uint8_t>(std::stoul(bytes.at(i), nullptr, 16));
    }
    thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
  }

 private:
  // A tap's frame: a vnet header (virtio_net_hdr, whose Linux header is no C++), then Ethernet.
  static constexpr std::size_t kEthernet = 10;
  static constexpr std::size_t kPayload = kEthernet + sizeof(ether_header);

  void Run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      pollfd fd{tap_, POLLIN, 0};
      if (poll(&fd, 1, 20) <= 0) continue;
      const ssize_t size = read(tap_, frame_.data(), frame_.size());
      if (size < static_cast<ssize_t>(kPayload)) continue;
      ether_header ethernet{};
      std::memcpy(&ethernet, frame_.data() + kEthernet, sizeof(ethernet));
      const bool answered = ntohs(ethernet.ether_type) == ETHERTYPE_ARP  ? AnswerArp()
                            : ntohs(ethernet.ether_type) == ETHERTYPE_IP ? AnswerUdp()
                                                                         : false;
      if (!answered) continue;
      std::memcpy(ethernet.ether_dhost, ethernet.ether_shost, ETH_ALEN);
      std::memcpy(ethernet.ether_shost, mac_.data(), ETH_ALEN);
      std::memcpy(frame_.data() + kEthernet, &ethernet, sizeof(ethernet));
      EXPECT_EQ(write(tap_, frame_.data(), static_cast<std::size_t>(size)), size);
    }
  }

  bool AnswerArp() {
    ether_arp arp{};
    std::memcpy(&arp, frame_.data() + kPayload, sizeof(arp));
    if (ntohs(arp.arp_op) != ARPOP_REQUEST || std::memcmp(arp.arp_tpa, &address_, 4) != 0) return false;
    arp.arp_op = htons(ARPOP_REPLY);
    std::memcpy(arp.arp_tha, arp.arp_sha, ETH_ALEN);
    std::memcpy(arp.arp_tpa, arp.arp_spa, 4);
    std::memcpy(arp.arp_sha, mac_.data(), ETH_ALEN);
    std::memcpy(arp.arp_spa, &address_, 4);
    std::memcpy(frame_.data() + kPayload, &arp, sizeof(arp));
    return true;
  }

  // Sums stay right when both ends change places, also the partial one that the vnet header speaks of.
  bool AnswerUdp() {
    iphdr ip{};
    std::memcpy(&ip, frame_.data() + kPayload, sizeof(ip));
    if (ip.protocol != IPPROTO_UDP || ip.daddr != address_.s_addr) return false;
    std::swap(ip.saddr, ip.daddr);
    std::memcpy(frame_.data() + kPayload, &ip, sizeof(ip));
    udphdr udp{};
    const std::size_t offset = kPayload + ip.ihl * std::size_t{4};
    std::memcpy(&udp, frame_.data() + offset, sizeof(udp));
    std::swap(udp.source, udp.dest);
    std::memcpy(frame_.data() + offset, &udp, sizeof(udp));
    return true;
  }

  const int tap_;
  in_addr address_{};
  std::array<std::uint8_t, ETH_ALEN> mac_{};
  std::array<char, 70000> frame_{};
  std::jthread thread_;
};

// Sends a datagram and waits for the same to come back.
bool Echoes(const std::string& address, int attempts) {
  const UniqueFd socket_fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(7777);
  inet_pton(AF_INET, address.substr(0, address.find('/')).c_str(), &peer.sin_addr);
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the socket interface's way
  if (connect(socket_fd.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof(peer)) != 0) return false;
  const std::string sent(1200, 'x');  // the same each time: an early one may come back late
  for (int attempt = 0; attempt < attempts; ++attempt) {
    // An error of an earlier datagram (ICMP) comes out of a later call: told apart by what is received.
    (void)send(socket_fd.get(), sent.data(), sent.size(), 0);
    pollfd fd{socket_fd.get(), POLLIN, 0};
    poll(&fd, 1, 500);
    std::array<char, 2048> buffer{};
    const ssize_t size = recv(socket_fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (size > 0 && std::string(buffer.data(), static_cast<std::size_t>(size)) == sent) return true;
  }
  return false;
}

std::string OutputOf(const std::vector<std::string>& argv) {
  SubprocessOptions options;
  options.argv = argv;
  const auto ended = RunSubprocess(Soon(), options);
  return ended.ok() && ended->exit_code == 0 ? ended->standard_output : "";
}

class CniE2e : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(geteuid(), 0U) << "needs root";
    ASSERT_TRUE(fs::exists("/usr/lib/cni/bridge")) << "needs containernetworking-plugins";
    std::string name = testing::TempDir() + "/husk-cni-XXXXXX";
    root_ = fs::canonical(mkdtemp(name.data())).string();
    options_.configuration_directory = root_ + "/net.d";
    options_.plugin_directories = {"/usr/lib/cni"};
    options_.namespace_directory = root_ + "/netns";
    options_.cache_directory = root_ + "/cache";
    options_.default_bridge = absl::StrCat("hk", getpid());
    options_.default_subnet = absl::StrCat("10.213.", getpid() % 256, ".0/24");
    links_before_ = Links();
    rules_before_ = Rules();
    auto network = NewCniNetwork(options_);
    ASSERT_TRUE(network.ok()) << network.status();
    network_ = std::move(*network);
  }

  void TearDown() override {
    for (const char* id : {"pod-a", "pod-b"}) {
      EXPECT_TRUE(network_->Detach(Soon(), Request(id)).ok());
      EXPECT_TRUE(network_->RemoveNamespace(Soon(), id).ok());
    }
    // The kernel takes a namespace apart, with its end of the veth pair, in its own time.
    Status removed;
    for (int i = 0; i < 600; ++i) {
      removed = RemoveDefaultBridge(options_);
      if (!absl::IsFailedPrecondition(removed)) break;
      EXPECT_TRUE(SleepFor(Soon(), std::chrono::milliseconds(50)).ok());
    }
    EXPECT_TRUE(removed.ok()) << removed;
    EXPECT_THAT(Mounts(), IsEmpty());
    EXPECT_THAT(Files(root_), IsEmpty());
    EXPECT_EQ(Links(), links_before_);
    EXPECT_EQ(Rules(), rules_before_);
    fs::remove_all(root_);
  }

  static NetworkRequest Request(const std::string& id) {
    NetworkRequest request;
    request.pod_id = id;
    request.name = "name-of-" + id;
    request.kubernetes_namespace = "default";
    request.uid = "uid-" + id;
    return request;
  }

  StatusOr<NetworkResult> AddPod(const std::string& id) {
    HUSK_RETURN_IF_ERROR(network_->CreateNamespace(Soon(), id));
    return network_->Attach(Soon(), Request(id));
  }

  [[nodiscard]] std::vector<std::string> Mounts() const {
    std::vector<std::string> mounts;
    const auto table = ReadMountTable();
    for (const Mount& mount : *table) {
      if (absl::StartsWith(mount.mount_point, root_)) mounts.push_back(mount.mount_point);
    }
    return mounts;
  }
  static std::vector<std::string> Files(const std::string& below) {
    std::vector<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(below)) {
      if (!entry.is_directory()) files.push_back(entry.path().string());
    }
    return files;
  }
  static std::vector<std::string> Links() {
    std::vector<std::string> links;
    for (const auto& entry : fs::directory_iterator("/sys/class/net")) links.push_back(entry.path().filename());
    std::sort(links.begin(), links.end());
    return links;
  }
  // The plugins' own chains stay, as on every node; rules for a pod must not.
  static std::vector<std::string> Rules() {
    std::vector<std::string> rules;
    for (const auto rule : absl::StrSplit(OutputOf({"/usr/sbin/iptables", "-w", "5", "-t", "nat", "-S"}), '\n')) {
      if (absl::StrContains(rule, "pod-") || absl::StrContains(rule, "10.213.")) rules.emplace_back(rule);
    }
    return rules;
  }

  std::string root_;
  CniOptions options_;
  std::unique_ptr<sandbox::Network> network_;
  std::vector<std::string> links_before_;
  std::vector<std::string> rules_before_;
};

TEST_F(CniE2e, AGuestOnTheDefaultBridgeIsReachedAndAloneAnswers) {
  ASSERT_TRUE(network_->Ready().ok()) << network_->Ready();
  const auto result = AddPod("pod-a");
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->interfaces.size(), 1U);
  const NetworkInterface& interface = result->interfaces[0];
  EXPECT_EQ(interface.name, "eth0");
  EXPECT_GE(interface.mtu, 1280U);
  EXPECT_EQ(interface.mac_address.size(), 17U);
  ASSERT_EQ(interface.addresses.size(), 1U);
  const std::string prefix = options_.default_subnet.substr(0, options_.default_subnet.rfind('.'));
  EXPECT_EQ(interface.addresses[0], prefix + ".2/24");
  ASSERT_EQ(interface.routes.size(), 1U);
  EXPECT_EQ(interface.routes[0].destination, "0.0.0.0/0");
  EXPECT_EQ(interface.routes[0].gateway, prefix + ".1");

  {
    auto tap = network_->CreateTap(Soon(), "pod-a", interface);
    ASSERT_TRUE(tap.ok()) << tap.status();
    const Guest guest(tap->get(), interface.addresses[0], interface.mac_address);
    EXPECT_TRUE(Echoes(interface.addresses[0], 40));
  }
  // Without its guest the pod is silent: the namespace's own stack answers neither ARP nor UDP.
  OutputOf({"/usr/sbin/ip", "neigh", "flush", "dev", options_.default_bridge});
  EXPECT_FALSE(Echoes(interface.addresses[0], 2));
  SubprocessOptions reach;
  reach.argv = {"/usr/sbin/ip", "neigh", "show", "dev", options_.default_bridge};
  const auto neighbours = RunSubprocess(Soon(), reach);
  ASSERT_TRUE(neighbours.ok());
  EXPECT_FALSE(absl::StrContains(neighbours->standard_output, "lladdr")) << neighbours->standard_output;

  // A second tap, as after a restart, takes the place of the first.
  auto again = network_->CreateTap(Soon(), "pod-a", interface);
  ASSERT_TRUE(again.ok()) << again.status();
  const Guest guest(again->get(), interface.addresses[0], interface.mac_address);
  EXPECT_TRUE(Echoes(interface.addresses[0], 40));
}

TEST_F(CniE2e, AGuestWithAForgedMacIsHeardOnlyWithoutTheFilter) {
  constexpr char kForged[] = "02:00:00:00:66:66";
  const auto result = AddPod("pod-a");
  ASSERT_TRUE(result.ok()) << result.status();
  const NetworkInterface& interface = result->interfaces[0];
  {
    const auto tap = network_->CreateTap(Soon(), "pod-a", interface);
    ASSERT_TRUE(tap.ok()) << tap.status();
    const Guest guest(tap->get(), interface.addresses[0], kForged);
    EXPECT_FALSE(Echoes(interface.addresses[0], 4));
  }
  options_.filter_sources = false;
  const auto open = NewCniNetwork(options_);
  ASSERT_TRUE(open.ok()) << open.status();
  const auto tap = (*open)->CreateTap(Soon(), "pod-a", interface);
  ASSERT_TRUE(tap.ok()) << tap.status();
  const Guest guest(tap->get(), interface.addresses[0], kForged);
  EXPECT_TRUE(Echoes(interface.addresses[0], 40));
}

TEST_F(CniE2e, TwoPodsGetTwoAddressesAndALaterProcessUndoesBoth) {
  std::array<StatusOr<NetworkResult>, 2> results = {absl::UnknownError(""), absl::UnknownError("")};
  {
    std::jthread first([&] { results[0] = AddPod("pod-a"); });
    std::jthread second([&] { results[1] = AddPod("pod-b"); });
  }
  ASSERT_TRUE(results[0].ok()) << results[0].status();
  ASSERT_TRUE(results[1].ok()) << results[1].status();
  EXPECT_NE(results[0]->interfaces[0].addresses, results[1]->interfaces[0].addresses);
  EXPECT_TRUE(absl::IsFailedPrecondition(RemoveDefaultBridge(options_))) << "ports are plugged in";

  auto later = NewCniNetwork(options_);
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_THAT(*(*later)->ExistingNamespaces(), testing::UnorderedElementsAre("pod-a", "pod-b"));
  EXPECT_TRUE((*later)->Detach(Soon(), Request("pod-a")).ok());
  EXPECT_TRUE((*later)->RemoveNamespace(Soon(), "pod-a").ok());
  EXPECT_TRUE((*later)->Detach(Soon(), Request("pod-b")).ok());
  EXPECT_TRUE((*later)->Detach(Soon(), Request("pod-b")).ok());
  EXPECT_THAT(*(*later)->ExistingNamespaces(), testing::ElementsAre("pod-b"));
  EXPECT_TRUE((*later)->RemoveNamespace(Soon(), "pod-b").ok());
  EXPECT_TRUE((*later)->RemoveNamespace(Soon(), "pod-b").ok());
  EXPECT_THAT(*(*later)->ExistingNamespaces(), IsEmpty());
}

TEST_F(CniE2e, HostPortsAreMappedAndGoAway) {
  if (const Status masquerade = ProbeMasquerade(Soon()); !masquerade.ok()) GTEST_SKIP() << masquerade;
  ASSERT_TRUE(network_->CreateNamespace(Soon(), "pod-a").ok());
  NetworkRequest request = Request("pod-a");
  request.port_mappings = {{Protocol::kTcp, 80, 47113, ""}, {Protocol::kUdp, 81, 0, ""}};
  const auto result = network_->Attach(Soon(), request);
  ASSERT_TRUE(result.ok()) << result.status();
  const std::string rules = OutputOf({"/usr/sbin/iptables", "-w", "5", "-t", "nat", "-S"});
  EXPECT_TRUE(absl::StrContains(rules, "47113")) << rules;
  EXPECT_TRUE(network_->Detach(Soon(), request).ok());
  EXPECT_FALSE(absl::StrContains(OutputOf({"/usr/sbin/iptables", "-w", "5", "-t", "nat", "-S"}), "47113"));
}

TEST_F(CniE2e, AConfiguredNetworkIsPreferredToTheDefault) {
  fs::create_directories(options_.configuration_directory);
  const std::string file = options_.configuration_directory + "/10-ours.conflist";
  std::ofstream(file) << R"({"cniVersion": "0.3.1", "name": "ours", "plugins": [{"type": "bridge", "bridge": ")"
                      << options_.default_bridge << R"(", "isGateway": true, "mtu": 1350, "ipam": {"type": "host-local",
       "dataDir": ")" << options_.cache_directory
                      << R"(/ipam", "ranges": [[{"subnet": "10.213.77.0/24"}], [{"subnet": "fd00:213::/64"}]],
       "routes": [{"dst": "10.0.0.0/8"}, {"dst": "::/0"}]}}]})";
  const auto result = AddPod("pod-a");
  ASSERT_TRUE(result.ok()) << result.status();
  const NetworkInterface& interface = result->interfaces[0];
  EXPECT_EQ(interface.mtu, 1350U);
  ASSERT_EQ(interface.addresses.size(), 2U);
  EXPECT_EQ(interface.addresses[0], "10.213.77.2/24");
  EXPECT_EQ(interface.addresses[1], "fd00:213::2/64");
  ASSERT_EQ(interface.routes.size(), 2U) << "the kernel's view and the result's are the same routes";
  EXPECT_EQ(interface.routes[0].gateway, "10.213.77.1");
  EXPECT_EQ(interface.routes[1].gateway, "fd00:213::1");

  // The configuration goes away before the pod does, and the namespace before DEL, as by a reboot: DEL follows what ADD
  // did, and the lease is given back.
  fs::remove(file);
  EXPECT_TRUE(network_->RemoveNamespace(Soon(), "pod-a").ok());
  EXPECT_THAT(*network_->ExistingNamespaces(), testing::ElementsAre("pod-a"));
  EXPECT_TRUE(fs::exists(options_.cache_directory + "/ipam/ours/10.213.77.2"));
  EXPECT_TRUE(network_->Detach(Soon(), Request("pod-a")).ok());
  EXPECT_FALSE(fs::exists(options_.cache_directory + "/ipam/ours/10.213.77.2"));
  fs::remove_all(options_.cache_directory + "/ipam");
}

}  // namespace
}  // namespace husk::sandbox
