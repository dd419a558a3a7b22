// One connection that came to a forwarded port, and its stream to the pod.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_FORWARDED_CONNECTION_H_
#define HUSK_CRI_HUSKCTL_STREAMS_FORWARDED_CONNECTION_H_

#include <utility>
// Boost 1.74 forgets <utility>.
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "cri/huskctl/streams/web_socket.h"

namespace husk::huskctl {

// Belongs to the io_context's thread. What is under way keeps it alive.
class ForwardedConnection final : public std::enable_shared_from_this<ForwardedConnection> {
 public:
  // `complain` gets what the user should know, at most once.
  ForwardedConnection(boost::asio::io_context& io, boost::asio::ip::tcp::socket local, std::uint16_t remote_port,
                      std::function<void(const Status&)> complain);

  // Joins it to the stream at `url`, or closes it with a complaint.
  void Start(const StatusOr<std::string>& url, const std::string& certificate_authority);
  // The io_context runs no more: lets go of the stream, whose handlers hold this.
  void Abandon() { remote_.reset(); }

 private:
  // Takes the channel's first two bytes, which are the port, off the bytes of a message.
  struct PortPrefix {
    std::string bytes;
    // False if it is another port.
    bool Strip(std::uint16_t port, std::string_view* message);
  };

  void OnOpened();
  void ReadRemote();
  void OnMessage(const std::string& message);
  void OnData(std::string_view bytes);
  void OnHalfClose(std::string_view channel);
  void OnRemoteEnd(const Status& why);
  void ReadLocal();
  void OnLocal(const boost::system::error_code& error, std::size_t count);
  void OnLocalEnd();
  void CloseIfBothEnded();
  void Fail(const Status& why);
  // No more for the local side: closes it when it has read what it got, or after a while.
  void EndLocal();

  boost::asio::io_context& io_;
  boost::asio::ip::tcp::socket local_;
  boost::asio::steady_timer linger_;
  const std::uint16_t port_;
  const std::function<void(const Status&)> complain_;
  std::shared_ptr<WebSocket> remote_;
  bool half_close_ = false;    // the protocol has it
  bool reads_local_ = false;   // has begun to, and does so until the local side ends
  bool local_ended_ = false;   // it sends no more
  bool remote_ended_ = false;  // likewise
  bool over_ = false;          // what the local side still sends is nobody's
  PortPrefix data_port_;
  PortPrefix error_port_;
  std::string error_text_;
  std::string to_local_;
  std::array<char, 65536> buffer_;  // NOLINT: reads fill it
};

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_FORWARDED_CONNECTION_H_
