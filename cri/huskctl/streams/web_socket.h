// One WebSocket connection to huskd's streaming server. By Boost.Beast, and not by the server's own codec, so that each
// is an independent check of the other (ADR 0105).
#ifndef HUSK_CRI_HUSKCTL_STREAMS_WEB_SOCKET_H_
#define HUSK_CRI_HUSKCTL_STREAMS_WEB_SOCKET_H_

#include <utility>
// Boost 1.74 forgets <utility>.
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "agent/common/status.h"

namespace husk::huskctl {

struct WebSocketOptions {
  std::string protocols;              // the client's preference first, with commas between them
  std::string certificate_authority;  // a PEM file, for https; empty: the system's
  std::chrono::milliseconds open_timeout = std::chrono::seconds(30);
  std::chrono::milliseconds ping_interval = std::chrono::seconds(20);
  std::chrono::milliseconds close_timeout = std::chrono::seconds(3);
};

// Everything happens on the thread that runs the io_context, which must outlive it. What is under way keeps it alive.
// No handler is called before the call that it was given to has returned.
class WebSocket {
 public:
  // INVALID_ARGUMENT if the file of the CA is not to be used, INTERNAL for a bad URL.
  static StatusOr<std::shared_ptr<WebSocket>> Create(boost::asio::io_context& io, const std::string& url,
                                                     WebSocketOptions options);
  virtual ~WebSocket() = default;

  // Once, and before all else. UNAVAILABLE if nobody answers, UNAUTHENTICATED if the server's certificate is not
  // trusted; what the server says when it refuses.
  virtual void Open(std::function<void(const Status&)> done) = 0;
  // That the server has chosen.
  [[nodiscard]] virtual const std::string& protocol() const = 0;

  // The next message, of 16 MiB at most. One at a time. OUT_OF_RANGE: the server has said goodbye. UNAVAILABLE: it is
  // lost.
  virtual void Read(std::function<void(StatusOr<std::string>)> done) = 0;
  // Any number, which are sent in their order. `done` is called when the system has taken the message, or with the
  // reason why not.
  virtual void Write(std::string message, std::function<void(const Status&)> done) = 0;
  // Says goodbye after what was written, and ends the connection when the server has answered, but not much later.
  // Once.
  virtual void Close(std::function<void()> done) = 0;
  // Ends it now. What is under way fails.
  virtual void Abort() = 0;
};

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_WEB_SOCKET_H_
