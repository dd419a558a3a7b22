// Which streams of a client's connection are which forwarded connections.
#ifndef HUSK_CRI_STREAMING_PORT_STREAMS_H_
#define HUSK_CRI_STREAMING_PORT_STREAMS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/common/status.h"
#include "cri/streaming/wire.h"
#include "sandbox/port_exchange.h"

namespace husk::cri {

// A forwarded connection has two streams: one for its data, one on which the server says what went wrong. Over SPDY the
// client opens them, in any order, with equal headers "requestid" and "port", and "streamtype" data or error. Over
// WebSocket channel 2i is the data of the i-th port that was asked for and 2i+1 its errors; both begin with the port,
// two bytes, the low one first. Not thread safe: it belongs to the I/O thread.
class PortStreams {
 public:
  using Clock = std::chrono::steady_clock;
  // Data of a stream whose other stream is not there yet.
  static constexpr std::size_t kMaximumEarlyData = std::size_t{64} << 10;
  // Over WebSocket a channel's number is a byte, and 255 is no channel; in base64 it is a digit.
  static constexpr std::size_t kMaximumPorts = 127;
  static constexpr std::size_t kMaximumBase64Ports = 5;

  struct Options {
    bool websocket = false;
    std::vector<std::uint16_t> ports;            // only these; empty: all (SPDY)
    std::chrono::milliseconds patience{30'000};  // for the second stream of a connection
  };
  // Both must outlive it. Over WebSocket `ports` says all, and they are opened at once.
  PortStreams(Options options, Wire& wire, sandbox::PortExchange& exchange);

  // ---- from the client ----------------------------------------------------------------------------------------------

  void OnEvent(WireEvent& event, Clock::time_point now);
  // Gives up connections whose second stream has not come in time.
  void Expire(Clock::time_point now);
  // When that should be done next.
  [[nodiscard]] std::optional<Clock::time_point> next_expiry() const;

  // ---- from the exchange --------------------------------------------------------------------------------------------

  // Whether the bytes are on the wire.
  bool Output(std::uint64_t connection, std::string_view bytes);
  void OutputEnded(std::uint64_t connection);
  void Over(std::uint64_t connection, const Status& status);
  // All that are left, for the same reason.
  void EndAll(const Status& status);

 private:
  struct Connection {
    std::string request_id;  // SPDY
    std::string port_text;   // SPDY: as the first stream said it
    std::uint16_t port = 0;
    std::optional<WireStream> data;
    std::optional<WireStream> errors;
    // Until both streams are there.
    std::string early_data = {};
    bool early_end = false;
    Clock::time_point expires;
    [[nodiscard]] bool complete() const { return data.has_value() && errors.has_value(); }
  };
  using Connections = std::map<std::uint64_t, Connection>;

  void OpenChannels();
  void OnOpened(WireStream stream, const WireHeaders& headers, Clock::time_point now);
  // The stream cannot be used: said on it if it is one for errors, else it is reset.
  void Reject(WireStream stream, bool errors, const std::string& why);
  void OnData(Connections::iterator found, std::string_view bytes);
  void OnDataEnded(Connections::iterator found, bool reset);
  // Both streams are there: it gets the number by which the exchange knows it.
  void Start(Connections::iterator found);
  // Ends its streams, the one for errors with these words, and forgets it.
  void End(Connections::iterator found, std::string_view words);
  [[nodiscard]] StatusOr<std::uint16_t> CheckPort(const std::string& text) const;

  const Options options_;
  Wire& wire_;
  sandbox::PortExchange& exchange_;
  std::uint64_t last_ = 0;
  Connections connections_;
  std::map<std::string, std::uint64_t> by_request_;
  std::map<WireStream, std::uint64_t> by_stream_;
  std::set<std::pair<Clock::time_point, std::uint64_t>> incomplete_;  // by when they expire
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_PORT_STREAMS_H_
