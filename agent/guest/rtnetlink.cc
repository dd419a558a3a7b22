#include "agent/guest/rtnetlink.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace husk::agent {
namespace {

void Pad(std::string& bytes) {
  bytes.append((4 - bytes.size() % 4) % 4, '\0');
}

}  // namespace

NetlinkMessage& NetlinkMessage::Attribute(std::uint16_t type, const void* data, std::size_t size) {
  Pad(body_);
  rtattr header{};
  header.rta_type = type;
  header.rta_len = static_cast<std::uint16_t>(RTA_LENGTH(size));
  body_.append(reinterpret_cast<const char*>(&header), sizeof(header));
  body_.append(static_cast<const char*>(data), size);
  return *this;
}

StatusOr<RouteSocket> RouteSocket::Open() {
  UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!fd.valid()) return ErrnoStatus(errno, "open rtnetlink");
  return RouteSocket(std::move(fd));
}

Status RouteSocket::Call(const NetlinkMessage& message, std::string_view doing) {
  nlmsghdr header{};
  header.nlmsg_type = message.type_;
  header.nlmsg_flags = static_cast<std::uint16_t>(message.flags_ | NLM_F_REQUEST | NLM_F_ACK);
  header.nlmsg_seq = ++sequence_;
  header.nlmsg_len = static_cast<std::uint32_t>(sizeof(header) + message.body_.size());
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  bytes += message.body_;
  if (send(socket_.get(), bytes.data(), bytes.size(), 0) < 0) return ErrnoStatus(errno, doing);
  for (;;) {
    std::array<char, 8192> buffer{};
    const ssize_t count = recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, doing);
    nlmsghdr answer{};
    nlmsgerr error{};
    if (static_cast<std::size_t>(count) < sizeof(answer) + sizeof(error)) continue;
    std::memcpy(&answer, buffer.data(), sizeof(answer));
    if (answer.nlmsg_seq != sequence_ || answer.nlmsg_type != NLMSG_ERROR) continue;
    std::memcpy(&error, buffer.data() + sizeof(answer), sizeof(error));
    return error.error == 0 ? absl::OkStatus() : ErrnoStatus(-error.error, doing);
  }
}

}  // namespace husk::agent
