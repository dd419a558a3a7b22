// The agent's end of the channel to huskd: requests in, answers out, and every break in between.
#ifndef HUSK_AGENT_GUEST_CHANNEL_H_
#define HUSK_AGENT_GUEST_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "agent/common/ttrpc.h"
#include "agent/common/unique_fd.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/payload.h"

namespace husk::agent {

// Finds where connections begin in the bytes from the host, and cuts what follows into frames; see "The channel" in
// agent.proto. Trusts nothing. Not thread safe.
class ChannelDecoder {
 public:
  struct Event {
    bool connected = false;               // a new connection begins; `nonce` has to be echoed
    std::string nonce;                    // kChannelNonceSize bytes
    std::optional<ttrpc::Frame> request;  // else
  };

  void Append(std::string_view bytes) {
    raw_.append(bytes);
    released_ = false;
  }
  // What comes next, or nothing if more bytes are needed: also those that tell whether the last ones begin a marker.
  // Else the next connection's marker could fill up a request that was cut just before its end.
  std::optional<Event> Next();
  // True while the connection waits for such bytes.
  [[nodiscard]] bool holds() const { return connected_ && !raw_.empty(); }
  // None came: Next gives what there is to the connection.
  void Release() { released_ = true; }
  // True while bytes are thrown away until the next marker.
  [[nodiscard]] bool lost() const { return !connected_; }

 private:
  // How many bytes at the end could be the beginning of a marker.
  static std::size_t CutMarker(std::string_view bytes);
  // Gives the first `count` bytes of raw_ to the connection, if there is one.
  void Take(std::size_t count);
  std::optional<Event> Begin();

  std::string raw_;  // not looked at yet
  std::string nonce_;
  std::string tail_;  // the last bytes taken, as far as they could be the beginning of a marker
  bool released_ = false;
  bool connected_ = false;
  std::uint64_t position_ = 0;
  ttrpc::Decoder frames_;
};

// Not thread safe; lives on the loop's thread.
class Channel {
 public:
  // How many requests may be without answer; more are refused, by RESOURCE_EXHAUSTED.
  static constexpr std::size_t kMaximumRequests = 256;
  // Requests are not read while so many bytes of answers wait for the host.
  static constexpr std::size_t kMaximumQueued = std::size_t{8} << 20;

  // Says the outcome of one request: payload of the response, or the error. What the payload borrows is used before it
  // returns. Calling it after the connection has gone
  // does nothing. Call it exactly once; it outlives neither the loop nor the channel.
  using Answer = std::function<void(StatusOr<Payload>)>;
  using Handler = std::function<void(const std::string& method, const std::string& payload, Answer answer)>;

  // `port`: non-blocking, read and write. `disconnected` is called when another connection begins.
  Channel(EventLoop& loop, UniqueFd port, Handler handler, std::function<void()> disconnected);
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel();

  Status Start();
  // No answer waits to be written.
  [[nodiscard]] bool idle() const { return queue_.empty(); }

 private:
  void Ready();
  void ReadAll();
  void Dispatch();
  void Begin(const std::string& nonce);
  void Request(const ttrpc::Frame& frame);
  void Respond(std::uint64_t connection, std::uint32_t stream, const StatusOr<Payload>& outcome);
  // Takes bytes of small pieces together, and writes large ones from where they are.
  void Send(const Payload& bytes);
  void Queue(std::string_view bytes);
  // As many bytes as the host takes now.
  std::size_t Write(std::string_view bytes);
  void WriteQueue();
  void Forget();

  EventLoop& loop_;
  UniqueFd port_;
  const Handler handler_;
  const std::function<void()> disconnected_;
  ChannelDecoder decoder_;
  std::optional<EventLoop::TimerId> held_;  // until the bytes that the decoder holds are released
  std::uint64_t connection_ = 0;            // answers to an older one are dropped
  std::size_t requests_ = 0;                // of this connection, without answer
  std::deque<std::string> queue_;
  std::size_t queued_ = 0;   // bytes in queue_
  std::size_t written_ = 0;  // of queue_.front()
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CHANNEL_H_
