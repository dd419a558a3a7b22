// A client's TCP connection, with or without TLS.
#ifndef HUSK_CRI_STREAMING_BYTE_STREAM_H_
#define HUSK_CRI_STREAMING_BYTE_STREAM_H_

#include <utility>
// Boost 1.74 forgets <utility>.
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/system/error_code.hpp>
#include <cstddef>
#include <functional>
#include <memory>

namespace husk::cri {

// Used on the I/O thread only. Handlers are called there, later, once each; after Close with an error.
class ByteStream {
 public:
  using Done = std::function<void(const boost::system::error_code& error, std::size_t bytes)>;

  virtual ~ByteStream() = default;
  virtual void Handshake(std::function<void(const boost::system::error_code& error)> done) = 0;
  virtual void ReadSome(boost::asio::mutable_buffer buffer, Done done) = 0;
  virtual void WriteAll(boost::asio::const_buffer buffer, Done done) = 0;
  virtual void Close() = 0;
  // Whether the peer has closed its side or is gone, asked without reading.
  [[nodiscard]] virtual bool PeerHasClosed() = 0;
};

std::unique_ptr<ByteStream> NewPlainStream(boost::asio::ip::tcp::socket socket);
// `context` must outlive the stream.
std::unique_ptr<ByteStream> NewTlsStream(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context& context);

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_BYTE_STREAM_H_
