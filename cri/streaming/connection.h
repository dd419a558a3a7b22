// One client of the streaming server, from its HTTP request to the end of its streams.
#ifndef HUSK_CRI_STREAMING_CONNECTION_H_
#define HUSK_CRI_STREAMING_CONNECTION_H_

#include <utility>
// Boost 1.74 forgets <utility>.
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "cri/streaming/byte_stream.h"
#include "cri/streaming/port_streams.h"
#include "cri/streaming/stream_request.h"
#include "cri/streaming/stream_roles.h"
#include "cri/streaming/stream_session.h"
#include "cri/streaming/upgrade.h"
#include "cri/streaming/wire.h"

namespace husk::cri {

struct StreamTimeouts {
  std::chrono::milliseconds head = std::chrono::seconds(10);         // from the connection to its request's end
  std::chrono::milliseconds streams = std::chrono::seconds(30);      // until all streams are open
  std::chrono::milliseconds stalled_end = std::chrono::seconds(60);  // a client that reads nothing once all is over
  std::chrono::milliseconds drain = std::chrono::seconds(10);        // for the client to close after the end
  std::chrono::milliseconds watch = std::chrono::seconds(2);         // looks after a client that is not being read from
};

class Connection;

// What a connection asks of its server, on the I/O thread. Must not wait.
struct ConnectionParts {
  std::function<std::optional<StreamRequest>(const std::string& token)> take_token;
  // All streams are there, or the first forwarded connections may come: does what was asked for on a thread of its own,
  // which calls Finish. RESOURCE_EXHAUSTED if there are too many.
  std::function<Status(std::shared_ptr<Connection> connection, StreamRequest request)> run;
};

// Lives as long as something is under way on it. What is not said to be thread safe belongs to the I/O thread.
class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::io_context& io, std::unique_ptr<ByteStream> stream,
             std::shared_ptr<const ConnectionParts> parts, const StreamTimeouts& timeouts);

  void Start();

  // ---- for the command's thread: thread safe ------------------------------------------------------------------------

  StreamSession& session() { return session_; }
  // Of a port-forward, once it runs.
  sandbox::PortExchange& exchange() { return exchange_; }
  // Fires when the client is gone.
  [[nodiscard]] std::stop_token gone() const { return gone_.get_token(); }
  // The command is over: tells the client, in the order that it relies on, and closes.
  void Finish(StatusOr<std::int32_t> outcome);
  // Ends it now.
  void Cut();
  // Which container or pod it is about, for the log; once it runs.
  [[nodiscard]] std::string Subject() const;

 private:
  enum class State { kHead, kOpening, kRunning, kFinishing, kClosed };

  // Reading.
  void Read();
  [[nodiscard]] bool MayRead();
  void OnBytes(std::size_t count);
  void OnHead();
  void Refuse(const std::string& response);
  void OnWireBytes(std::string_view bytes);
  void OnEvent(WireEvent& event);
  void OnData(WireStream stream, std::string bytes);
  void OnPortEvent(WireEvent& event);
  void PeerGone(const std::string& why);

  // Opening.
  void Upgrade(UpgradeAnswer answer, StreamRequest request, const std::string& rest);
  void RunIfComplete();
  // Forwarded connections come and go while it runs.
  void Forward();
  void Run();

  // Writing.
  void Send(sandbox::OutputKind kind, const std::string& bytes);
  void SendForwarded(std::uint64_t connection, const std::string& bytes);
  // Tells the streams of forwarded connections something that the exchange has said.
  template <typename Tell>
  void PostToPorts(Tell tell);
  void Flush();
  void OnWritten(const boost::system::error_code& error);

  // The end.
  void End(const StatusOr<std::int32_t>& outcome);
  void Close();

  void Arm(std::chrono::milliseconds time, void (Connection::*expired)());
  void OnHeadTimeout();
  void OnOpeningTimeout();
  void AwaitExpiry();
  void Watch();

  boost::asio::io_context& io_;
  const std::unique_ptr<ByteStream> stream_;
  const std::shared_ptr<const ConnectionParts> parts_;
  const StreamTimeouts timeouts_;
  boost::asio::steady_timer timer_;         // of the present state
  boost::asio::steady_timer watch_timer_;   // while nothing is read
  boost::asio::steady_timer expiry_timer_;  // of forwarded connections that lack a stream
  StreamSession session_;
  sandbox::PortExchange exchange_;
  std::stop_source gone_;

  State state_ = State::kHead;
  std::array<char, 65536> buffer_;  // NOLINT: reads fill it
  std::string head_;
  bool reading_ = false;
  bool watching_ = false;
  std::chrono::steady_clock::time_point kept_alive_;
  StreamRequest request_;
  StreamProtocol protocol_;
  std::optional<StreamRoles> roles_;
  std::vector<WireStream> opened_;  // those to be ended
  std::unique_ptr<Wire> wire_;
  std::unique_ptr<PortStreams> ports_;  // of a port-forward, instead of roles_
  bool awaiting_expiry_ = false;
  SizeReader sizes_;

  std::string out_;              // waits for the write under way
  std::size_t out_payload_ = 0;  // of it, the command's bytes
  std::string writing_;
  std::size_t writing_payload_ = 0;
  bool close_when_written_ = false;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_CONNECTION_H_
