#include "cri/streaming/byte_stream.h"

#include <poll.h>

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>

namespace husk::cri {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

void CloseSocket(tcp::socket& socket) {
  error_code ignored;
  socket.shutdown(tcp::socket::shutdown_both, ignored);
  socket.close(ignored);
}

bool HasClosed(tcp::socket& socket) {
  if (!socket.is_open()) return true;
  pollfd poll_fd{.fd = socket.native_handle(), .events = POLLRDHUP, .revents = 0};
  return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(tcp::socket socket) : socket_(std::move(socket)) {}
  void Handshake(std::function<void(const error_code&)> done) override {
    boost::asio::post(socket_.get_executor(), [done = std::move(done)] { done(error_code()); });
  }
  void ReadSome(boost::asio::mutable_buffer buffer, Done done) override {
    socket_.async_read_some(buffer, std::move(done));
  }
  void WriteAll(boost::asio::const_buffer buffer, Done done) override {
    boost::asio::async_write(socket_, buffer, std::move(done));
  }
  void Close() override { CloseSocket(socket_); }
  bool PeerHasClosed() override { return HasClosed(socket_); }

 private:
  tcp::socket socket_;
};

class TlsStream final : public ByteStream {
 public:
  TlsStream(tcp::socket socket, boost::asio::ssl::context& context) : stream_(std::move(socket), context) {}
  void Handshake(std::function<void(const error_code&)> done) override {
    stream_.async_handshake(boost::asio::ssl::stream_base::server, std::move(done));
  }
  void ReadSome(boost::asio::mutable_buffer buffer, Done done) override {
    stream_.async_read_some(buffer, std::move(done));
  }
  void WriteAll(boost::asio::const_buffer buffer, Done done) override {
    boost::asio::async_write(stream_, buffer, std::move(done));
  }
  void Close() override { CloseSocket(stream_.next_layer()); }
  bool PeerHasClosed() override { return HasClosed(stream_.next_layer()); }

 private:
  boost::asio::ssl::stream<tcp::socket> stream_;
};

}  // namespace

std::unique_ptr<ByteStream> NewPlainStream(tcp::socket socket) {
  return std::make_unique<PlainStream>(std::move(socket));
}

std::unique_ptr<ByteStream> NewTlsStream(tcp::socket socket, boost::asio::ssl::context& context) {
  return std::make_unique<TlsStream>(std::move(socket), context);
}

}  // namespace husk::cri
