#include "cri/streaming/spdy_codec.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cri/streaming/big_endian.h"

namespace husk::cri {
namespace {

constexpr std::size_t kFrameHeader = 8;
constexpr std::uint64_t kVersion = 3;
constexpr std::uint32_t kStreamMask = 0x7fffffff;
constexpr std::uint8_t kFlagFin = 1;
// Frames to the peer are at most this long, so that streams take turns.
constexpr std::size_t kMaximumSend = std::size_t{32} << 10;

enum FrameType : std::uint16_t {
  kSynStream = 1,
  kSynReply = 2,
  kRstStream = 3,
  kPing = 6,
  kGoAway = 7,
  kHeaders = 8,
};

enum ResetCode : std::uint32_t { kProtocolError = 1, kRefusedStream = 3 };

Status TooShort(const char* what) {
  return absl::InvalidArgumentError(absl::StrCat("a SPDY ", what, " is too short"));
}

}  // namespace

Status SpdyCodec::Receive(std::string_view bytes, std::vector<WireEvent>* events) {
  const bool continued = !partial_.empty();
  if (continued) {
    partial_.append(bytes);
    bytes = partial_;
  }
  while (!bytes.empty()) {
    HUSK_ASSIGN_OR_RETURN(const bool more, Step(&bytes, events));
    if (!more) break;
  }
  // The rest is a frame's beginning, in partial_ already if it began there: a long frame in short pieces must not be
  // copied with each of them.
  if (continued) {
    partial_.erase(0, partial_.size() - bytes.size());
  } else {
    partial_.assign(bytes);
  }
  return absl::OkStatus();
}

StatusOr<bool> SpdyCodec::Step(std::string_view* bytes, std::vector<WireEvent>* events) {
  if (data_left_ > 0) {
    TakeData(bytes, events);
    return true;
  }
  if (bytes->size() < kFrameHeader) return false;
  const std::uint64_t first = ReadBigEndian(*bytes, 0, 4);
  const auto flags = static_cast<std::uint8_t>(ReadBigEndian(*bytes, 4, 1));
  const std::size_t length = ReadBigEndian(*bytes, 5, 3);
  if ((first & 0x80000000U) == 0) {
    bytes->remove_prefix(kFrameHeader);
    data_stream_ = static_cast<WireStream>(first);
    data_left_ = length;
    data_ends_ = (flags & kFlagFin) != 0;
    if (length == 0 && data_ends_) PeerEnded(data_stream_, events);
    return true;
  }
  if ((first >> 16 & 0x7fff) != kVersion) {
    return absl::InvalidArgumentError(absl::StrCat("SPDY version ", first >> 16 & 0x7fff, "; only 3 is spoken here"));
  }
  if (length > kMaximumControlFrame) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a SPDY control frame of ", length, " bytes; at most ", kMaximumControlFrame, " may be"));
  }
  if (bytes->size() - kFrameHeader < length) return false;
  const std::string_view payload = bytes->substr(kFrameHeader, length);
  bytes->remove_prefix(kFrameHeader + length);
  HUSK_RETURN_IF_ERROR(Control(first & 0xffff, flags, payload, events));
  return true;
}

void SpdyCodec::TakeData(std::string_view* bytes, std::vector<WireEvent>* events) {
  const std::size_t size = std::min(data_left_, bytes->size());
  const auto stream = streams_.find(data_stream_);
  if (stream != streams_.end() && !stream->second.peer_ended) {
    events->push_back(
        {.kind = WireEvent::Kind::kData, .stream = data_stream_, .data = std::string(bytes->substr(0, size))});
  }
  bytes->remove_prefix(size);
  data_left_ -= size;
  if (data_left_ == 0 && data_ends_) PeerEnded(data_stream_, events);
}

void SpdyCodec::PeerEnded(WireStream stream, std::vector<WireEvent>* events) {
  const auto found = streams_.find(stream);
  if (found == streams_.end() || found->second.peer_ended) return;
  found->second.peer_ended = true;
  events->push_back({.kind = WireEvent::Kind::kEnded, .stream = stream});
  if (found->second.ended) streams_.erase(found);
}

Status SpdyCodec::Control(std::uint64_t type, std::uint8_t flags, std::string_view payload,
                          std::vector<WireEvent>* events) {
  switch (type) {
    case kSynStream:
      return SynStream(flags, payload, events);
    case kSynReply:
    case kHeaders:
      // Of no use here, but the zlib stream has to stay in step.
      if (payload.size() < 4) return TooShort("frame with headers");
      return header_reader_.Read(payload.substr(4)).status();
    case kRstStream:
      if (payload.size() < 8) return TooShort("RST_STREAM");
      Reset(payload, events);
      return absl::OkStatus();
    case kPing:
      if (payload.size() < 4) return TooShort("PING");
      // Even ids are echoes of our own.
      if (ReadBigEndian(payload, 3, 1) % 2 == 1) AppendControl(kPing, payload.substr(0, 4));
      return absl::OkStatus();
    case kGoAway:
      // No new streams: those that are open go on.
      events->push_back({.kind = WireEvent::Kind::kClosing});
      return absl::OkStatus();
    default:
      return absl::OkStatus();  // SETTINGS, WINDOW_UPDATE, and what the protocol says to ignore
  }
}

Status SpdyCodec::SynStream(std::uint8_t flags, std::string_view payload, std::vector<WireEvent>* events) {
  if (payload.size() < 10) return TooShort("SYN_STREAM");
  const auto id = static_cast<WireStream>(ReadBigEndian(payload, 0, 4) & kStreamMask);
  // Before any refusal: the zlib stream has to stay in step.
  HUSK_ASSIGN_OR_RETURN(WireHeaders headers, header_reader_.Read(payload.substr(10)));
  if (id % 2 == 0 || id <= last_stream_) {
    AppendReset(id, kProtocolError);
    if (streams_.erase(id) > 0) events->push_back({.kind = WireEvent::Kind::kReset, .stream = id});
    return absl::OkStatus();
  }
  last_stream_ = id;
  if (closing_ || streams_.size() >= kMaximumStreams) {
    AppendReset(id, kRefusedStream);
    return absl::OkStatus();
  }
  streams_[id] = Stream();
  std::string reply;
  AppendBigEndian(id, 4, &reply);
  reply.append(header_writer_.Write({}));
  AppendControl(kSynReply, reply);
  events->push_back({.kind = WireEvent::Kind::kOpened, .stream = id, .headers = std::move(headers)});
  if ((flags & kFlagFin) != 0) PeerEnded(id, events);
  return absl::OkStatus();
}

void SpdyCodec::Reset(std::string_view payload, std::vector<WireEvent>* events) {
  const auto id = static_cast<WireStream>(ReadBigEndian(payload, 0, 4) & kStreamMask);
  if (streams_.erase(id) > 0) events->push_back({.kind = WireEvent::Kind::kReset, .stream = id});
}

void SpdyCodec::Send(WireStream stream, std::string_view data) {
  const auto found = streams_.find(stream);
  if (found == streams_.end() || found->second.ended) return;
  for (; !data.empty(); data.remove_prefix(std::min(data.size(), kMaximumSend))) {
    AppendData(stream, 0, data.substr(0, kMaximumSend));
  }
}

void SpdyCodec::SendEnd(WireStream stream) {
  const auto found = streams_.find(stream);
  if (found == streams_.end() || found->second.ended) return;
  AppendData(stream, kFlagFin, "");
  found->second.ended = true;
  if (found->second.peer_ended) streams_.erase(found);
}

void SpdyCodec::Refuse(WireStream stream) {
  if (streams_.erase(stream) > 0) AppendReset(stream, kRefusedStream);
}

void SpdyCodec::SendClose() {
  if (std::exchange(closing_, true)) return;
  std::string payload;
  AppendBigEndian(last_stream_, 4, &payload);
  AppendBigEndian(0, 4, &payload);  // OK
  AppendControl(kGoAway, payload);
}

void SpdyCodec::KeepAlive() {
  last_ping_ += 2;  // a server's are even
  std::string payload;
  AppendBigEndian(last_ping_, 4, &payload);
  AppendControl(kPing, payload);
}

std::string SpdyCodec::TakeOutput() {
  return std::exchange(output_, std::string());
}

void SpdyCodec::AppendControl(std::uint64_t type, std::string_view payload) {
  AppendBigEndian(0x8000 | kVersion, 2, &output_);
  AppendBigEndian(type, 2, &output_);
  AppendBigEndian(payload.size(), 4, &output_);  // no flags
  output_.append(payload);
}

void SpdyCodec::AppendReset(WireStream stream, std::uint32_t code) {
  std::string payload;
  AppendBigEndian(stream, 4, &payload);
  AppendBigEndian(code, 4, &payload);
  AppendControl(kRstStream, payload);
}

void SpdyCodec::AppendData(WireStream stream, std::uint8_t flags, std::string_view data) {
  AppendBigEndian(stream, 4, &output_);
  AppendBigEndian(flags, 1, &output_);
  AppendBigEndian(data.size(), 3, &output_);
  output_.append(data);
}

}  // namespace husk::cri
