// A pod's network on the host: namespace, CNI, tap, and the redirect between CNI's interface and the tap.
#ifndef HUSK_SANDBOX_NETWORK_NETWORK_H_
#define HUSK_SANDBOX_NETWORK_NETWORK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::sandbox {

enum class Protocol { kTcp, kUdp, kSctp };

struct PortMapping {
  Protocol protocol = Protocol::kTcp;
  std::uint16_t container_port = 0;
  std::uint16_t host_port = 0;  // 0: none is mapped
  std::string host_ip;
};

// Of a pod, seen from it. 0: no limit.
struct Bandwidth {
  std::uint64_t ingress_bits_per_second = 0;
  std::uint64_t egress_bits_per_second = 0;
};

struct NetworkRequest {
  std::string pod_id;  // CNI's container id
  std::string name;
  std::string kubernetes_namespace;
  std::string uid;
  std::vector<PortMapping> port_mappings;
  Bandwidth bandwidth;
  std::vector<std::string> dns_servers;
  std::vector<std::string> dns_searches;
  std::vector<std::string> dns_options;
};

struct NetworkRoute {
  std::string destination;   // CIDR
  std::string gateway;       // empty: on link
  std::uint32_t metric = 0;  // 0: the kernel's default
  std::string source;        // the address to prefer; empty: the kernel chooses
};

// A neighbour that nobody answers for: it stands in the table for good.
struct NetworkNeighbour {
  std::string address;
  std::string mac_address;
};

struct NetworkInterface {
  std::string name;
  std::string mac_address;
  std::uint32_t mtu = 0;
  std::vector<std::string> addresses;  // CIDR, IPv4 before IPv6
  std::vector<NetworkRoute> routes;
  std::vector<NetworkNeighbour> neighbours;
};

struct NetworkResult {
  std::vector<NetworkInterface> interfaces;  // the one that the pod is known by first
  // CNI's, rarely any.
  std::vector<std::string> dns_servers;
  std::vector<std::string> dns_searches;
  std::vector<std::string> dns_options;
  std::string cni_result_json;  // for verbose status
};

// Thread safe; calls for different pods do not wait for each other (CNI plugins may). A step's effect is found again by
// the pod's id alone, so each can be undone by a later process.
class Network {
 public:
  virtual ~Network() = default;

  // OK if a pod could get a network now; else why not, in words for NetworkReady's message. Follows the configuration
  // directory live.
  [[nodiscard]] virtual Status Ready() = 0;

  // The path of the pod's network namespace, whether it exists or not.
  [[nodiscard]] virtual std::string NamespacePath(const std::string& pod_id) const = 0;
  virtual Status CreateNamespace(const Context& context, const std::string& pod_id) = 0;
  // CNI ADD. On failure CNI DEL has been tried.
  virtual StatusOr<NetworkResult> Attach(const Context& context, const NetworkRequest& request) = 0;
  // A tap in the namespace with tc redirects to and from the interface (one of Attach's), and its MTU; the tap's
  // descriptor, which keeps it alive (with vnet headers, non-blocking). The guest's device takes over the interface's
  // MAC address; what it sends with another one, or from addresses that are not the interface's, is dropped.
  virtual StatusOr<UniqueFd> CreateTap(const Context& context, const std::string& pod_id,
                                       const NetworkInterface& interface) = 0;
  // CNI DEL, idempotent. OK if nothing was attached.
  virtual Status Detach(const Context& context, const NetworkRequest& request) = 0;
  virtual Status RemoveNamespace(const Context& context, const std::string& pod_id) = 0;
  // Ids of pods that have a namespace of ours, known or not: what recovery must look through.
  [[nodiscard]] virtual StatusOr<std::vector<std::string>> ExistingNamespaces() = 0;
};

struct CniOptions {
  std::string configuration_directory = "/etc/cni/net.d";
  std::vector<std::string> plugin_directories = {"/opt/cni/bin", "/usr/lib/cni"};
  std::string namespace_directory;  // where the namespaces are bound, such as /run/husk/netns
  std::string cache_directory;      // what DEL needs to know of ADD
  // Used while configuration_directory has no configuration: Husk's own bridge. Empty bridge name: none.
  std::string default_bridge = "husk0";
  std::string default_subnet = "10.88.0.0/16";
  // Frames that a guest sends with the MAC or IP address of somebody else are dropped.
  bool filter_sources = true;
};

StatusOr<std::unique_ptr<Network>> NewCniNetwork(const CniOptions& options);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_NETWORK_H_
