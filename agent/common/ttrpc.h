// The frames of ttrpc, the protocol between huskd and the agent (and between containerd and its shims): a header of
// ten bytes, then a protobuf message. Both sides share this codec; it trusts nothing it reads.
#ifndef HUSK_AGENT_COMMON_TTRPC_H_
#define HUSK_AGENT_COMMON_TTRPC_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::ttrpc {

// 4 MiB: the limit of ttrpc's own implementations. A longer frame ends the connection.
inline constexpr std::size_t kMaximumPayload = std::size_t{4} << 20;
inline constexpr std::size_t kHeaderSize = 10;

enum class MessageType : std::uint8_t { kRequest = 1, kResponse = 2 };

// One message. stream_id pairs a response with its request: odd numbers, chosen by the client, used once a
// connection.
struct Frame {
  std::uint32_t stream_id = 0;
  MessageType type = MessageType::kRequest;
  std::uint8_t flags = 0;
  std::string payload;
};

// Header (payload length, stream id: big endian; type; flags) and payload. The payload must not be longer than
// kMaximumPayload.
std::string Encode(const Frame& frame);

// The header alone, for a payload that is sent after it.
std::string EncodeHeader(std::uint32_t stream_id, MessageType type, std::uint8_t flags, std::size_t payload_size);

// Cuts a byte stream into frames. Not thread safe. It keeps at most one frame's bytes.
class Decoder {
 public:
  // Takes the next received bytes.
  void Append(std::string_view bytes);
  // The next whole frame, none if more bytes are needed, or INVALID_ARGUMENT for a frame that is too long or of an
  // unknown type: then the stream cannot be trusted any more and the decoder stays failed.
  StatusOr<std::optional<Frame>> Next();

 private:
  std::string buffer_;
  std::size_t consumed_ = 0;
  Status failure_;
};

}  // namespace husk::ttrpc

#endif  // HUSK_AGENT_COMMON_TTRPC_H_
