// Listens at ports of this host and joins each connection to a stream of its own to a pod's port.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_PORT_FORWARDER_H_
#define HUSK_CRI_HUSKCTL_STREAMS_PORT_FORWARDER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "cri/huskctl/streams/port_mapping.h"

namespace husk::huskctl {

struct PortForwarderOptions {
  std::vector<PortMapping> ports;
  // IP addresses, and "localhost": 127.0.0.1, and ::1 where that works. Empty: localhost.
  std::vector<std::string> addresses;
  std::string certificate_authority;  // a PEM file, for https; empty: the system's
};

struct PortForwarderParts {
  // A fresh URL for one connection to the pod's port. Called on threads of the forwarder's, several at once; may wait.
  std::function<StatusOr<std::string>(std::uint16_t remote)> url_for;
  // Lines for the user, without their ends, on the thread of Run: what happens, and what went wrong.
  std::function<void(const std::string&)> say;
  std::function<void(const std::string&)> complain;
};

class PortForwarder {
 public:
  virtual ~PortForwarder() = default;

  // Listens, so that clients may come. INVALID_ARGUMENT for what is no address; else what the system says, with the
  // place.
  static StatusOr<std::unique_ptr<PortForwarder>> Listen(const PortForwarderOptions& options, PortForwarderParts parts);

  // Where it listens: "127.0.0.1:8080 -> 80", "[::1]:8080 -> 80".
  [[nodiscard]] virtual std::vector<std::string> places() const = 0;
  // Serves until Stop, which is thread safe, and cuts all connections off.
  virtual void Run() = 0;
  virtual void Stop() = 0;
};

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_PORT_FORWARDER_H_
