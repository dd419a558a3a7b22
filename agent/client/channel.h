// The channel to one guest: connects, opens, multiplexes requests, and starts again when it breaks.
#ifndef HUSK_AGENT_CLIENT_CHANNEL_H_
#define HUSK_AGENT_CLIENT_CHANNEL_H_

#include <utility>  // Boost 1.74's Asio relies on it

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/error_code.hpp>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "agent/client/answer.h"
#include "agent/client/call.h"
#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "agent/common/ttrpc.h"

namespace husk::agent {

// Request, Break and Close may be called by any thread; everything else happens on the thread that runs `io`, so that
// the rest needs no lock. Connects when there is something to send and stays connected.
//
// Memory is bounded whatever the guest does: one frame, and as many requests as callers wait for.
class Channel : public std::enable_shared_from_this<Channel> {
 public:
  // Requests without answer at any time, over all callers; the agent refuses more than 256. Others wait for their turn.
  static constexpr std::size_t kMaximumInFlight = 192;
  // Requests whose callers have gone but whose answers have not come. The connection is then given up: the guest
  // forgets them at the next one.
  static constexpr std::size_t kMaximumAbandoned = 96;

  Channel(boost::asio::io_context& io, std::string socket_path);
  ~Channel();

  // The response's payload. Errors: the guest's own, those of AgentClient, and INVALID_ARGUMENT for a request that is
  // longer than a frame.
  StatusOr<std::string> Request(const Context& context, const std::string& method, std::string payload);
  // The guest said something that cannot be: starts again. `trouble` says what.
  void Break(const std::string& trouble);
  void Close();

 private:
  struct Connection;
  using ConnectionPointer = std::shared_ptr<Connection>;

  void Start(const std::shared_ptr<Call>& call);
  void Abandon(const std::shared_ptr<Call>& call);

  void Connect();
  void ConnectLater();
  void Attempt(const ConnectionPointer& connection);
  void Read(const ConnectionPointer& connection);
  void Received(const ConnectionPointer& connection, std::string_view bytes);
  Status Handle(const ConnectionPointer& connection, const ttrpc::Frame& frame);
  Status HandleHello(const ConnectionPointer& connection, const Answer& answer);
  void Write(const ConnectionPointer& connection, std::string bytes);
  void Pump(const ConnectionPointer& connection);
  // Does nothing if it is not the present connection any more. By value: it clears connection_.
  void Drop(ConnectionPointer connection, const std::string& trouble);
  void FailAll(const Status& status);

  void SetTrouble(const std::string& trouble);
  [[nodiscard]] std::string trouble() const;

  const std::string socket_path_;
  boost::asio::io_context& io_;
  boost::asio::steady_timer reconnect_timer_;
  bool reconnecting_ = false;  // the timer runs
  bool was_connected_ = false;
  bool closed_ = false;
  std::chrono::milliseconds delay_;
  ConnectionPointer connection_;
  // Not sent on this connection, in the order in which they were made.
  std::map<std::uint64_t, std::shared_ptr<Call>> waiting_;
  std::uint64_t next_sequence_ = 0;

  mutable Mutex mutex_;
  std::string trouble_ ABSL_GUARDED_BY(mutex_);  // what ended the last connection, or kept it from being made
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_CHANNEL_H_
