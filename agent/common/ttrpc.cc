#include "agent/common/ttrpc.h"

#include "absl/strings/str_cat.h"

namespace husk::ttrpc {
namespace {

void PutBigEndian32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>((value >> shift) & 0xff));
}

std::uint32_t GetBigEndian32(std::string_view in) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = (value << 8) | static_cast<std::uint8_t>(in[static_cast<std::size_t>(i)]);
  return value;
}

}  // namespace

std::string EncodeHeader(std::uint32_t stream_id, MessageType type, std::uint8_t flags, std::size_t payload_size) {
  std::string out;
  PutBigEndian32(out, static_cast<std::uint32_t>(payload_size));
  PutBigEndian32(out, stream_id);
  out.push_back(static_cast<char>(type));
  out.push_back(static_cast<char>(flags));
  return out;
}

std::string Encode(const Frame& frame) {
  std::string out = EncodeHeader(frame.stream_id, frame.type, frame.flags, frame.payload.size());
  out.append(frame.payload);
  return out;
}

void Decoder::Append(std::string_view bytes) {
  if (!failure_.ok()) return;
  buffer_.erase(0, consumed_);
  consumed_ = 0;
  buffer_.append(bytes);
}

StatusOr<std::optional<Frame>> Decoder::Next() {
  if (!failure_.ok()) return failure_;
  const std::string_view rest = std::string_view(buffer_).substr(consumed_);
  if (rest.size() < kHeaderSize) return std::optional<Frame>();
  const std::uint32_t length = GetBigEndian32(rest);
  const auto type = static_cast<std::uint8_t>(rest[8]);
  if (length > kMaximumPayload) {
    failure_ = absl::InvalidArgumentError(
        absl::StrCat("ttrpc frame of ", length, " bytes; at most ", kMaximumPayload, " are allowed"));
  } else if (type != static_cast<std::uint8_t>(MessageType::kRequest) &&
             type != static_cast<std::uint8_t>(MessageType::kResponse)) {
    failure_ = absl::InvalidArgumentError(absl::StrCat("ttrpc frame of unknown type ", type));
  }
  if (!failure_.ok()) {
    buffer_.clear();
    return failure_;
  }
  if (rest.size() - kHeaderSize < length) return std::optional<Frame>();
  Frame frame{.stream_id = GetBigEndian32(rest.substr(4)),
              .type = static_cast<MessageType>(type),
              .flags = static_cast<std::uint8_t>(rest[9]),
              .payload = std::string(rest.substr(kHeaderSize, length))};
  consumed_ += kHeaderSize + length;
  return std::optional<Frame>(std::move(frame));
}

}  // namespace husk::ttrpc
