// What carries the streams of one client over one connection: SPDY/3.1 or WebSocket, as a pure function of bytes.
#ifndef HUSK_CRI_STREAMING_WIRE_H_
#define HUSK_CRI_STREAMING_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/common/status.h"

namespace husk::cri {

// A stream's number on the wire: SPDY's stream id, WebSocket's channel.
using WireStream = std::uint32_t;
using WireHeaders = std::vector<std::pair<std::string, std::string>>;

struct WireEvent {
  enum class Kind {
    kOpened,  // by the peer, with headers
    kData,    // some of a stream's bytes, in order
    kEnded,   // the peer sends nothing more on this stream
    kReset,   // the peer has given the stream up, both ways
    kClosing  // the peer wants to end the connection
  };
  Kind kind = Kind::kOpened;
  WireStream stream = 0;
  WireHeaders headers = {};
  std::string data = {};
};

// The server's side of a connection. It does no I/O and knows no time: bytes from the peer go in and events come out,
// commands go in and bytes for the peer come out. Not thread safe.
class Wire {
 public:
  virtual ~Wire() = default;

  // Takes what the peer has sent, however it is cut, and appends what it means to `events`. After an error the
  // connection cannot go on: send what TakeOutput has, and close.
  virtual Status Receive(std::string_view bytes, std::vector<WireEvent>* events) = 0;

  // Commands about streams that are unknown, reset or ended on our side do nothing.
  virtual void Send(WireStream stream, std::string_view data) = 0;
  virtual void SendEnd(WireStream stream) = 0;
  // The peer opened a stream that is of no use.
  virtual void Refuse(WireStream stream) = 0;
  // Nothing more is sent; the peer is asked to close.
  virtual void SendClose() = 0;
  // Something small for a peer whose bytes are not being read for the moment. It says that the connection lives; and
  // where the peer has closed, with more unread than the kernels hold, only an answer to something sent tells.
  virtual void KeepAlive() = 0;

  // The bytes for the peer since the last call.
  [[nodiscard]] virtual std::string TakeOutput() = 0;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_WIRE_H_
