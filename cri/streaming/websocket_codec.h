// WebSocket (RFC 6455) with Kubernetes' channels in its messages.
#ifndef HUSK_CRI_STREAMING_WEBSOCKET_CODEC_H_
#define HUSK_CRI_STREAMING_WEBSOCKET_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cri/streaming/wire.h"

namespace husk::cri {

// A message is one channel's bytes behind the channel's number. There is no opening: every channel is there from the
// beginning, so kOpened is never told, and no end of a channel can be sent. Bytes are taken piece by piece, so a
// message may have any length, but for one in base64.
class WebSocketCodec final : public Wire {
 public:
  struct Options {
    bool base64 = false;      // messages are text: a digit for the channel, then base64
    bool half_close = false;  // [255, n] ends channel n
  };
  static constexpr WireStream kEndOfChannel = 255;
  static constexpr std::size_t kMaximumBase64Message = std::size_t{4} << 20;

  explicit WebSocketCodec(Options options) : options_(options) {}

  // What the handshake answers to a Sec-WebSocket-Key.
  static std::string AcceptKey(std::string_view key);

  Status Receive(std::string_view bytes, std::vector<WireEvent>* events) override;
  // Empty data is sent too, as an empty message of the channel.
  void Send(WireStream stream, std::string_view data) override;
  void SendEnd(WireStream /*stream*/) override {}
  void Refuse(WireStream /*stream*/) override {}
  void SendClose() override;
  // A pong that nobody asked for.
  void KeepAlive() override;
  std::string TakeOutput() override;

 private:
  // The frame in whose middle we are.
  struct Frame {
    std::uint8_t opcode = 0;
    bool final = false;
    std::uint64_t left = 0;
    std::uint64_t position = 0;  // of the next byte, for the mask
    std::string mask = {};
  };

  StatusOr<bool> Step(std::string_view* bytes, std::vector<WireEvent>* events);
  // False if the header is not whole yet.
  StatusOr<bool> BeginFrame(std::string_view* bytes);
  Status CheckFrame(const Frame& frame, bool masked, std::uint8_t reserved);
  Status TakePayload(std::string_view* bytes, std::vector<WireEvent>* events);
  Status Message(std::string piece, std::vector<WireEvent>* events);
  Status EndMessage(std::vector<WireEvent>* events);
  Status EndControl(std::vector<WireEvent>* events);
  Status Fail(std::uint16_t code, const std::string& message);
  void AppendFrame(std::uint8_t opcode, std::string_view payload);
  void AppendClose(std::uint16_t code);

  const Options options_;
  std::string partial_;  // a frame header's beginning
  bool in_frame_ = false;
  Frame frame_;
  std::string control_;  // payload of a control frame
  bool in_message_ = false;
  bool channel_known_ = false;  // the message's first byte has come
  WireStream channel_ = 0;
  std::string kept_;  // of a message that can only be understood as a whole
  bool peer_closed_ = false;
  bool closing_ = false;  // our close frame is sent
  std::string output_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_WEBSOCKET_CODEC_H_
