#include "cri/streaming/websocket_codec.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "cri/streaming/big_endian.h"

namespace husk::cri {
namespace {

enum Opcode : std::uint8_t { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };
enum CloseCode : std::uint16_t { kNormal = 1000, kProtocolError = 1002, kBadContent = 1007, kTooLarge = 1009 };

constexpr std::size_t kMaximumControl = 125;
// Of an end of a channel: its number, and room for what would be wrong.
constexpr std::size_t kMaximumEnd = 16;
constexpr std::size_t kMaximumSend = std::size_t{32} << 10;

bool IsControl(std::uint8_t opcode) {
  return (opcode & 8) != 0;
}

}  // namespace

std::string WebSocketCodec::AcceptKey(std::string_view key) {
  const std::string text = absl::StrCat(std::string(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
  std::array<unsigned char, SHA_DIGEST_LENGTH> digest{};
  SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());  // NOLINT
  return absl::Base64Escape(std::string(digest.begin(), digest.end()));
}

Status WebSocketCodec::Receive(std::string_view bytes, std::vector<WireEvent>* events) {
  const bool continued = !partial_.empty();
  if (continued) {
    partial_.append(bytes);
    bytes = partial_;
  }
  while (!bytes.empty() && !peer_closed_) {
    HUSK_ASSIGN_OR_RETURN(const bool more, Step(&bytes, events));
    if (!more) break;
  }
  // The rest is a frame header's beginning, in partial_ already if it began there.
  if (peer_closed_) bytes = "";
  if (continued) {
    partial_.erase(0, partial_.size() - bytes.size());
  } else {
    partial_.assign(bytes);
  }
  return absl::OkStatus();
}

StatusOr<bool> WebSocketCodec::Step(std::string_view* bytes, std::vector<WireEvent>* events) {
  if (!in_frame_) {
    HUSK_ASSIGN_OR_RETURN(const bool begun, BeginFrame(bytes));
    if (!begun) return false;
  }
  HUSK_RETURN_IF_ERROR(TakePayload(bytes, events));
  return true;
}

StatusOr<bool> WebSocketCodec::BeginFrame(std::string_view* bytes) {
  if (bytes->size() < 2) return false;
  const auto first = static_cast<std::uint8_t>(bytes->front());
  const auto second = static_cast<std::uint8_t>((*bytes)[1]);
  const std::size_t length_bytes = (second & 0x7f) == 127 ? 8 : (second & 0x7f) == 126 ? 2 : 0;
  Frame frame{.opcode = static_cast<std::uint8_t>(first & 0xf), .final = (first & 0x80) != 0};
  frame.left = length_bytes == 0 ? second & 0x7f : 0;
  const bool masked = (second & 0x80) != 0;
  HUSK_RETURN_IF_ERROR(CheckFrame(frame, masked, first & 0x70));
  if (IsControl(frame.opcode) && length_bytes > 0) return Fail(kProtocolError, "a WebSocket control frame is too long");
  if (bytes->size() < 2 + length_bytes + 4) return false;
  if (length_bytes > 0) frame.left = ReadBigEndian(*bytes, 2, length_bytes);
  if (frame.left >> 63 != 0) return Fail(kProtocolError, "a WebSocket frame's length is out of range");
  frame.mask = bytes->substr(2 + length_bytes, 4);
  bytes->remove_prefix(2 + length_bytes + 4);
  if (!IsControl(frame.opcode) && frame.opcode != kContinuation) {
    in_message_ = true;
    channel_known_ = false;
    kept_.clear();
  }
  frame_ = std::move(frame);
  in_frame_ = true;
  return true;
}

Status WebSocketCodec::CheckFrame(const Frame& frame, bool masked, std::uint8_t reserved) {
  const auto error = [this](const std::string& message) { return Fail(kProtocolError, message); };
  if (!masked) return error("a WebSocket frame of a client is not masked");
  if (reserved != 0) return error("a WebSocket frame has reserved bits set");
  switch (frame.opcode) {
    case kContinuation:
      return in_message_ ? absl::OkStatus() : error("a WebSocket frame continues no message");
    case kText:
    case kBinary:
      return in_message_ ? error("a WebSocket message begins inside another one") : absl::OkStatus();
    case kClose:
    case kPing:
    case kPong:
      return frame.final ? absl::OkStatus() : error("a WebSocket control frame is cut into pieces");
    default:
      return error(absl::StrCat("a WebSocket frame has the unknown opcode ", frame.opcode));
  }
}

Status WebSocketCodec::TakePayload(std::string_view* bytes, std::vector<WireEvent>* events) {
  const std::size_t size = std::min<std::uint64_t>(frame_.left, bytes->size());
  std::string piece(bytes->substr(0, size));
  for (char& byte : piece) byte = static_cast<char>(byte ^ frame_.mask[frame_.position++ % 4]);
  bytes->remove_prefix(size);
  frame_.left -= size;
  if (frame_.left == 0) in_frame_ = false;
  if (IsControl(frame_.opcode)) {
    control_.append(piece);
    return in_frame_ ? absl::OkStatus() : EndControl(events);
  }
  if (!piece.empty()) HUSK_RETURN_IF_ERROR(Message(std::move(piece), events));
  if (in_frame_ || !frame_.final) return absl::OkStatus();
  in_message_ = false;
  return EndMessage(events);
}

Status WebSocketCodec::Message(std::string piece, std::vector<WireEvent>* events) {
  if (!channel_known_) {
    channel_ = static_cast<unsigned char>(piece.front());
    channel_known_ = true;
    piece.erase(0, 1);
    if (options_.base64) {
      if (channel_ < '0' || channel_ > '9') return Fail(kBadContent, "a WebSocket message's channel is not a digit");
      channel_ -= '0';
    }
  }
  if (options_.base64) {
    if (kept_.size() + piece.size() > kMaximumBase64Message) {
      return Fail(kTooLarge,
                  absl::StrCat("a WebSocket message in base64 is longer than ", kMaximumBase64Message, " bytes"));
    }
    kept_.append(piece);
  } else if (options_.half_close && channel_ == kEndOfChannel) {
    if (kept_.size() + piece.size() > kMaximumEnd)
      return Fail(kBadContent, "the end of a WebSocket channel is too long");
    kept_.append(piece);
  } else if (!piece.empty()) {
    events->push_back({.kind = WireEvent::Kind::kData, .stream = channel_, .data = std::move(piece)});
  }
  return absl::OkStatus();
}

Status WebSocketCodec::EndMessage(std::vector<WireEvent>* events) {
  if (!channel_known_) return absl::OkStatus();  // an empty message
  if (options_.base64) {
    std::string data;
    if (!absl::Base64Unescape(kept_, &data)) return Fail(kBadContent, "a WebSocket message is not base64");
    if (!data.empty()) events->push_back({.kind = WireEvent::Kind::kData, .stream = channel_, .data = std::move(data)});
  } else if (options_.half_close && channel_ == kEndOfChannel) {
    if (kept_.size() != 1) return Fail(kBadContent, "the end of a WebSocket channel does not name one channel");
    events->push_back({.kind = WireEvent::Kind::kEnded, .stream = static_cast<unsigned char>(kept_.front())});
  }
  kept_.clear();
  return absl::OkStatus();
}

Status WebSocketCodec::EndControl(std::vector<WireEvent>* events) {
  const std::string payload = std::exchange(control_, std::string());
  if (frame_.opcode == kPing && !closing_) AppendFrame(kPong, payload);
  if (frame_.opcode != kClose) return absl::OkStatus();
  peer_closed_ = true;
  events->push_back({.kind = WireEvent::Kind::kClosing});
  AppendClose(kNormal);
  return absl::OkStatus();
}

Status WebSocketCodec::Fail(std::uint16_t code, const std::string& message) {
  AppendClose(code);
  return absl::InvalidArgumentError(message);
}

void WebSocketCodec::Send(WireStream stream, std::string_view data) {
  if (closing_) return;
  do {
    const std::string piece(data.substr(0, kMaximumSend));
    if (options_.base64) {
      AppendFrame(kText, absl::StrCat(stream, absl::Base64Escape(piece)));
    } else {
      AppendFrame(kBinary, absl::StrCat(std::string(1, static_cast<char>(stream)), piece));
    }
    data.remove_prefix(piece.size());
  } while (!data.empty());
}

void WebSocketCodec::SendClose() {
  AppendClose(kNormal);
}

void WebSocketCodec::KeepAlive() {
  if (!closing_) AppendFrame(kPong, "");
}

std::string WebSocketCodec::TakeOutput() {
  return std::exchange(output_, std::string());
}

void WebSocketCodec::AppendFrame(std::uint8_t opcode, std::string_view payload) {
  output_.push_back(static_cast<char>(0x80 | opcode));
  if (payload.size() <= kMaximumControl) {
    output_.push_back(static_cast<char>(payload.size()));
  } else if (payload.size() <= 0xffff) {
    output_.push_back(126);
    AppendBigEndian(payload.size(), 2, &output_);
  } else {
    output_.push_back(127);
    AppendBigEndian(payload.size(), 8, &output_);
  }
  output_.append(payload);
}

void WebSocketCodec::AppendClose(std::uint16_t code) {
  if (std::exchange(closing_, true)) return;
  std::string payload;
  AppendBigEndian(code, 2, &payload);
  AppendFrame(kClose, payload);
}

}  // namespace husk::cri
