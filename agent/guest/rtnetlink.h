// One conversation with the kernel about links, addresses and routes.
#ifndef HUSK_AGENT_GUEST_RTNETLINK_H_
#define HUSK_AGENT_GUEST_RTNETLINK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::agent {

// One request: its fixed part, then attributes.
class NetlinkMessage {
 public:
  template <typename Fixed>
  NetlinkMessage(std::uint16_t type, std::uint16_t flags, const Fixed& fixed)
      : type_(type), flags_(flags), body_(reinterpret_cast<const char*>(&fixed), sizeof(fixed)) {}

  NetlinkMessage& Attribute(std::uint16_t type, const void* data, std::size_t size);
  NetlinkMessage& Attribute(std::uint16_t type, std::uint32_t value) { return Attribute(type, &value, sizeof(value)); }

 private:
  friend class RouteSocket;
  std::uint16_t type_;
  std::uint16_t flags_;
  std::string body_;
};

// Not thread safe.
class RouteSocket {
 public:
  static StatusOr<RouteSocket> Open();
  // Sends and waits for the kernel's acknowledgement, which it gives at once. `doing` is for the error.
  Status Call(const NetlinkMessage& message, std::string_view doing);

 private:
  explicit RouteSocket(UniqueFd socket) : socket_(std::move(socket)) {}
  UniqueFd socket_;
  std::uint32_t sequence_ = 0;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_RTNETLINK_H_
