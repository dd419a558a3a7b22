#include "agent/client/test_guest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>

#include "agent/proto/channel.h"

namespace husk::agent {
namespace {

UniqueFd Listen(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const UniqueFd directory(open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const std::string name = "/proc/self/fd/" + std::to_string(directory.get()) + path.substr(slash);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(&address.sun_path[0], sizeof address.sun_path - 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  unlink(path.c_str());
  // NOLINTNEXTLINE(bugprone-casting-through-void): the sockets API's own idiom
  EXPECT_EQ(bind(fd.get(), static_cast<const sockaddr*>(static_cast<const void*>(&address)), sizeof address), 0);
  EXPECT_EQ(listen(fd.get(), 1), 0);
  return fd;
}

// True if `fd` can be read; false if `stop` fired.
bool WaitReadable(int fd, int stop) {
  std::array<pollfd, 2> polled{pollfd{.fd = fd, .events = POLLIN, .revents = 0},
                               pollfd{.fd = stop, .events = POLLIN, .revents = 0}};
  while (poll(polled.data(), polled.size(), -1) < 0) {
  }
  return polled[1].revents == 0;
}

}  // namespace

void TestGuest::Peer::Send(std::string_view bytes) {
  while (!bytes.empty() && !closed_) {
    const ssize_t count = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) {
      closed_ = true;
    } else {
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
  }
}

void TestGuest::Peer::Answer(std::uint32_t stream, const std::string& payload) {
  v1::RpcResponse response;
  response.set_payload(payload);
  Send(ttrpc::Encode(
      {.stream_id = stream, .type = ttrpc::MessageType::kResponse, .payload = response.SerializeAsString()}));
}

void TestGuest::Peer::Fail(std::uint32_t stream, int code, const std::string& message) {
  v1::RpcResponse response;
  response.mutable_status()->set_code(code);
  response.mutable_status()->set_message(message);
  Send(ttrpc::Encode(
      {.stream_id = stream, .type = ttrpc::MessageType::kResponse, .payload = response.SerializeAsString()}));
}

void TestGuest::AnswerEmpty(Peer& peer, std::uint32_t stream, const v1::RpcRequest& request) {
  peer.Answer(stream, request.method() == "Hello" ? HelloPayload() : "");
}

std::string TestGuest::HelloPayload() {
  v1::HelloResponse hello;
  hello.set_protocol_version(1);
  hello.set_guest_boot_id("test");
  return hello.SerializeAsString();
}

void TestGuest::Start() {
  stop_.Reset(eventfd(0, EFD_CLOEXEC));
  listener_ = Listen(path_);
  thread_ = std::thread([this] { Serve(); });
}

void TestGuest::Stop(bool remove_socket) {
  if (thread_.joinable()) {
    const std::uint64_t one = 1;
    EXPECT_EQ(write(stop_.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
    thread_.join();
  }
  listener_.Reset();
  if (remove_socket) unlink(path_.c_str());
}

void TestGuest::Serve() {
  while (WaitReadable(listener_.get(), stop_.get())) {
    const UniqueFd connection(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection.valid()) continue;
    ++connections_;
    ServeConnection(connection.get());
  }
}

void TestGuest::ServeConnection(int fd) {
  open_ = false;
  owed_echoes_.clear();
  Peer peer(fd);
  peer.Send(stale_bytes);
  std::string raw;
  std::array<char, 65536> buffer{};
  while (!peer.closed() && WaitReadable(fd, stop_.get())) {
    const ssize_t count = recv(fd, buffer.data(), buffer.size(), 0);
    if (count <= 0) return;
    raw.append(buffer.data(), static_cast<std::size_t>(count));
    while (!peer.closed() && Consume(peer, raw)) {
    }
  }
}

// Takes what can be taken of `raw`: an opening, or bytes of requests. False if more bytes are needed.
bool TestGuest::Consume(Peer& peer, std::string& raw) {
  const std::size_t marker = raw.find(kChannelMarker);
  if (marker == 0) return Open(peer, raw);
  std::size_t usable = std::min(marker, raw.size());
  // A cut marker may be at the end.
  if (marker == std::string::npos) {
    for (std::size_t tail = std::min(raw.size(), kChannelMarker.size() - 1); tail > 0; --tail) {
      if (!raw.ends_with(kChannelMarker.substr(0, tail))) continue;
      usable -= tail;
      break;
    }
  }
  if (usable == 0) return false;
  std::string bytes = raw.substr(0, usable);
  raw.erase(0, usable);
  if (!open_) return true;
  MaskChannelBytes(nonce_, position_, bytes.data(), bytes.size());
  position_ += bytes.size();
  decoder_.Append(bytes);
  for (auto frame = decoder_.Next(); !peer.closed(); frame = decoder_.Next()) {
    EXPECT_TRUE(frame.ok()) << frame.status();
    if (!frame.ok() || !frame->has_value()) break;
    v1::RpcRequest request;
    EXPECT_TRUE(request.ParseFromString((*frame)->payload));
    EXPECT_EQ(request.service(), "husk.agent.v1.Agent");
    if ((*frame)->stream_id == 1 && answers_hello) {
      peer.Answer(1, HelloPayload());
    } else {
      handler(peer, (*frame)->stream_id, request);
    }
  }
  return true;
}

bool TestGuest::Open(Peer& peer, std::string& raw) {
  if (raw.size() < kChannelMarker.size() + kChannelNonceSize) return false;
  const std::string echo = raw.substr(0, kChannelMarker.size() + kChannelNonceSize);
  raw.erase(0, echo.size());
  const int number = ++openings_;
  open_ = false;
  if (number <= ignored_openings) return true;
  owed_echoes_ += echo;
  if (number <= late_openings) return true;
  nonce_ = echo.substr(kChannelMarker.size());
  open_ = true;
  position_ = 0;
  decoder_ = ttrpc::Decoder();
  peer.Send(std::exchange(owed_echoes_, ""));
  return true;
}

}  // namespace husk::agent
