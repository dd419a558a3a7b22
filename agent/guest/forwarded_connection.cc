#include "agent/guest/forwarded_connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::agent {
namespace {

// Each way; the kernel takes memory for them as bytes come.
constexpr int kSocketBuffer = 192 << 10;
constexpr std::array<int, 2> kFamilies = {AF_INET, AF_INET6};

union Address {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

std::pair<Address, socklen_t> Loopback(int family, std::uint16_t port) {
  Address address{};
  if (family == AF_INET) {
    address.v4.sin_family = AF_INET;
    address.v4.sin_port = htons(port);
    address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return {address, sizeof(address.v4)};
  }
  address.v6.sin6_family = AF_INET6;
  address.v6.sin6_port = htons(port);
  address.v6.sin6_addr = in6addr_loopback;
  return {address, sizeof(address.v6)};
}

// A port that nobody listens at can be the one that the kernel chooses for our own end, which then meets itself.
bool IsItsOwnPeer(int socket, const Address& peer, socklen_t peer_size) {
  Address own{};
  socklen_t own_size = sizeof(own);
  return getsockname(socket, &own.any, &own_size) == 0 && own_size == peer_size &&
         std::memcmp(&own, &peer, own_size) == 0;
}

}  // namespace

void ForwardedConnection::Dial(std::uint16_t port) {
  port_ = port;
  TryNext("");
}

void ForwardedConnection::TryNext(const std::string& trouble) {
  Close();
  if (!trouble.empty()) absl::StrAppend(&trouble_, trouble_.empty() ? "" : ", ", trouble);
  while (attempts_ < static_cast<int>(kFamilies.size())) {
    const int family = kFamilies.at(static_cast<std::size_t>(attempts_++));
    const int error = Connect(family);
    if (error == 0) return;
    Close();
    absl::StrAppend(&trouble_, trouble_.empty() ? "" : ", ",
                    family == AF_INET ? "127.0.0.1: " : "[::1]: ", std::strerror(error));
  }
  Fail(absl::StrCat("port ", port_, " of the pod cannot be reached: ", trouble_));
}

int ForwardedConnection::Connect(int family) {
  socket_ = UniqueFd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket_.valid()) return errno;
  const int one = 1;
  setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  for (const int option : {SO_SNDBUF, SO_RCVBUF}) {
    setsockopt(socket_.get(), SOL_SOCKET, option, &kSocketBuffer, sizeof(kSocketBuffer));
  }
  const auto [address, size] = Loopback(family, port_);
  if (connect(socket_.get(), &address.any, size) != 0 && errno != EINPROGRESS) return errno;
  // Edges: what has come stays in the queue, and must not be told again and again.
  const Status watched = loop_.Watch(socket_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                     [this](std::uint32_t events) { Ready(events); });
  return watched.ok() ? 0 : EMFILE;
}

void ForwardedConnection::Ready(std::uint32_t events) {
  if (state_ == State::kConnecting) FinishConnect();
  if (state_ != State::kOpen) return changed_();
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & EPOLLOUT) != 0 && !writable_) {
    writable_ = true;
    ++version_;
  }
  changed_();
}

void ForwardedConnection::FinishConnect() {
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error == 0) {
    Address peer{};
    socklen_t peer_size = sizeof(peer);
    // The event may be one of an earlier socket with this number.
    if (getpeername(socket_.get(), &peer.any, &peer_size) != 0) return;
    if (!IsItsOwnPeer(socket_.get(), peer, peer_size)) {
      state_ = State::kOpen;
      return;
    }
    error = ECONNREFUSED;
  }
  TryNext(absl::StrCat(attempts_ == 1 ? "127.0.0.1: " : "[::1]: ", std::strerror(error)));
}

void ForwardedConnection::Fail(const std::string& why) {
  Close();
  state_ = State::kFailed;
  error_ = why;
  ++version_;
}

std::uint64_t ForwardedConnection::Write(std::uint64_t offset, std::string_view data, bool end) {
  if (state_ == State::kConnecting || offset > written_) return written_;
  data.remove_prefix(std::min<std::uint64_t>(written_ - offset, data.size()));
  // Bytes for a program that reads no more count as taken.
  if (broken_ || shut_ || state_ == State::kFailed) return written_ += data.size();
  while (!data.empty()) {
    const ssize_t count = send(socket_.get(), data.data(), data.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      if (writable_) ++version_;
      writable_ = false;
      return written_;
    }
    if (count < 0) {
      // What the program has written before can still be read; then comes not an end but this.
      broken_ = true;
      readable_ = true;
      return written_ += data.size();
    }
    written_ += static_cast<std::uint64_t>(count);
    data.remove_prefix(static_cast<std::size_t>(count));
  }
  if (end) {
    shut_ = true;
    shutdown(socket_.get(), SHUT_WR);
  }
  return written_;
}

void ForwardedConnection::Acknowledge(std::uint64_t version, std::uint64_t offset) {
  told_version_ = std::max(told_version_, std::min(version, version_));
  // With MSG_TRUNC the bytes are thrown away, not copied.
  std::array<char, 65536> nowhere;  // NOLINT: nothing is read from it
  while (socket_.valid() && read_ < offset) {
    const ssize_t count =
        recv(socket_.get(), nowhere.data(), std::min<std::uint64_t>(nowhere.size(), offset - read_), MSG_TRUNC);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    read_ += static_cast<std::uint64_t>(count);
  }
}

void ForwardedConnection::Look(std::size_t maximum, std::string& data) {
  int waiting = 0;
  ioctl(socket_.get(), FIONREAD, &waiting);
  data.resize(std::clamp<std::size_t>(static_cast<std::size_t>(std::max(waiting, 0)), 1, maximum));
  ssize_t count = -1;
  do {
    count = recv(socket_.get(), data.data(), data.size(), MSG_PEEK);
  } while (count < 0 && errno == EINTR);
  const int error = errno;
  data.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  if (count > 0) return;
  readable_ = false;
  if (count < 0 && error == EAGAIN && !broken_) return;
  if (count == 0 && !broken_) {
    ended_ = true;
    ++version_;
    return;
  }
  Fail(absl::StrCat("the connection to port ", port_,
                    " broke: ", std::strerror(count < 0 && error != EAGAIN ? error : ECONNRESET)));
}

bool ForwardedConnection::Tell(std::size_t maximum, v1::ConnectionNews& news) {
  std::string data;
  if (state_ == State::kOpen && readable_ && !ended_ && maximum > 0) Look(maximum, data);
  if (data.empty() && version_ == told_version_) return false;
  news.set_version(version_);
  news.set_writable(state_ == State::kOpen && writable_);
  news.set_offset(read_);
  news.set_data(std::move(data));
  news.set_end(ended_);
  news.set_error(error_);
  return true;
}

void ForwardedConnection::Close() {
  if (socket_.valid()) loop_.Unwatch(socket_.get());
  socket_.Reset();
}

}  // namespace husk::agent
