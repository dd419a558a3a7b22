#include "agent/guest/channel.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/proto/agent.pb.h"
#include "agent/proto/channel.h"

namespace husk::agent {
namespace {

constexpr std::string_view kService = "husk.agent.v1.Agent";
// Shorter pieces of an answer are copied into one write.
constexpr std::size_t kLargePiece = 4096;
// A marker is written at once: its bytes follow each other closely.
constexpr auto kHeldPatience = std::chrono::seconds(1);

}  // namespace

std::size_t ChannelDecoder::CutMarker(std::string_view bytes) {
  for (std::size_t tail = std::min(kChannelMarker.size() - 1, bytes.size()); tail > 0; --tail) {
    if (bytes.ends_with(kChannelMarker.substr(0, tail))) return tail;
  }
  return 0;
}

void ChannelDecoder::Take(std::size_t count) {
  const std::string_view taken = std::string_view(raw_).substr(0, count);
  const std::string both =
      tail_ + std::string(taken.substr(taken.size() - std::min(taken.size(), kChannelMarker.size())));
  tail_ = both.substr(both.size() - CutMarker(both));
  if (connected_) {
    MaskChannelBytes(nonce_, position_, raw_.data(), count);
    position_ += count;
    frames_.Append(std::string_view(raw_).substr(0, count));
  }
  raw_.erase(0, count);
}

std::optional<ChannelDecoder::Event> ChannelDecoder::Begin() {
  nonce_ = raw_.substr(kChannelMarker.size(), kChannelNonceSize);
  raw_.erase(0, kChannelMarker.size() + kChannelNonceSize);
  connected_ = true;
  position_ = 0;
  frames_ = ttrpc::Decoder();
  // The connection may have broken within its nonce, whose end is then the next one's beginning.
  tail_ = nonce_.substr(nonce_.size() - CutMarker(nonce_));
  return Event{.connected = true, .nonce = nonce_, .request = std::nullopt};
}

std::optional<ChannelDecoder::Event> ChannelDecoder::Next() {
  for (;;) {
    if (connected_) {
      auto frame = frames_.Next();
      if (!frame.ok()) {
        connected_ = false;
      } else if (frame->has_value()) {
        return Event{.connected = false, .nonce = "", .request = std::move(*frame)};
      }
    }
    if (raw_.empty()) return std::nullopt;
    const std::string both = tail_ + raw_;
    const std::size_t marker = both.find(kChannelMarker);
    if (marker == std::string::npos) {
      const std::size_t held = released_ ? 0 : std::min(CutMarker(both), raw_.size());
      if (held == raw_.size()) return std::nullopt;
      Take(raw_.size() - held);
      continue;
    }
    if (marker > tail_.size()) {
      Take(marker - tail_.size());
      continue;
    }
    raw_ = both.substr(marker);
    tail_.clear();
    connected_ = false;
    // One that follows before the nonce can be complete shows that this one was cut.
    const std::size_t next = raw_.find(kChannelMarker, 1);
    if (next < kChannelMarker.size() + kChannelNonceSize) {
      raw_.erase(0, next);
    } else if (raw_.size() < kChannelMarker.size() + kChannelNonceSize) {
      return std::nullopt;
    } else {
      return Begin();
    }
  }
}

Channel::Channel(EventLoop& loop, UniqueFd port, Handler handler, std::function<void()> disconnected)
    : loop_(loop), port_(std::move(port)), handler_(std::move(handler)), disconnected_(std::move(disconnected)) {}

Channel::~Channel() {
  loop_.Unwatch(port_.get());
  if (held_) loop_.Cancel(*held_);
}

Status Channel::Start() {
  // Edge-triggered: a port without a host shows EPOLLHUP all the time.
  return loop_.Watch(port_.get(), EPOLLIN | EPOLLOUT | EPOLLET, [this](std::uint32_t) { Ready(); });
}

void Channel::Ready() {
  // A hang-up says nothing: the kernel learns of it beside the bytes, so it may be told when those of the next
  // connection have been read already. Only a marker ends a connection.
  WriteQueue();
  ReadAll();
}

void Channel::ReadAll() {
  std::array<char, 65536> buffer;  // NOLINT: read() fills it
  while (queued_ < kMaximumQueued) {
    const ssize_t count = read(port_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    decoder_.Append(std::string_view(buffer.data(), static_cast<std::size_t>(count)));
    Dispatch();
  }
}

void Channel::Dispatch() {
  while (auto event = decoder_.Next()) {
    if (event->connected) {
      Begin(event->nonce);
    } else {
      Request(*event->request);
    }
  }
  if (held_) loop_.Cancel(*held_);
  held_.reset();
  if (!decoder_.holds()) return;
  held_ = loop_.After(kHeldPatience, [this] {
    held_.reset();
    decoder_.Release();
    Dispatch();
  });
}

void Channel::Forget() {
  ++connection_;
  requests_ = 0;
  // A frame that is half written has to stay half: the host finds the next connection by its marker and nonce.
  queue_.clear();
  queued_ = 0;
  written_ = 0;
  disconnected_();
}

void Channel::Begin(const std::string& nonce) {
  Forget();
  Queue(std::string(kChannelMarker) + nonce);
}

void Channel::Request(const ttrpc::Frame& frame) {
  v1::RpcRequest request;
  const std::uint64_t connection = connection_;
  const std::uint32_t stream = frame.stream_id;
  ++requests_;
  Answer answer = [this, connection, stream](const StatusOr<Payload>& outcome) {
    Respond(connection, stream, outcome);
  };
  if (frame.type != ttrpc::MessageType::kRequest || !request.ParseFromString(frame.payload)) {
    answer(absl::InvalidArgumentError("not a ttrpc request"));
  } else if (request.service() != kService) {
    answer(absl::UnimplementedError(absl::StrCat("unknown service ", request.service())));
  } else if (requests_ > kMaximumRequests) {
    answer(absl::ResourceExhaustedError("too many requests without answer"));
  } else {
    handler_(request.method(), request.payload(), std::move(answer));
  }
}

void Channel::Respond(std::uint64_t connection, std::uint32_t stream, const StatusOr<Payload>& outcome) {
  if (connection != connection_) return;
  --requests_;
  // A v1::RpcResponse with its payload's bytes from where they are.
  std::string head;
  if (outcome.ok() && outcome->size() > 0) {
    head = FieldHead(v1::RpcResponse::kPayloadFieldNumber, outcome->size());
  } else if (!outcome.ok()) {
    v1::RpcResponse response;
    response.mutable_status()->set_code(static_cast<std::int32_t>(outcome.status().code()));
    // Output of programs may be anything; proto3 strings are UTF-8 or the host refuses the whole answer.
    std::string message(outcome.status().message());
    std::replace_if(message.begin(), message.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }, '?');
    response.mutable_status()->set_message(message);
    head = response.SerializeAsString();
  }
  const std::size_t size = head.size() + (outcome.ok() ? outcome->size() : 0);
  Payload frame(ttrpc::EncodeHeader(stream, ttrpc::MessageType::kResponse, 0, size));
  frame.Append(std::move(head));
  if (outcome.ok()) {
    for (const std::string_view piece : outcome->pieces()) frame.Borrow(piece);
  }
  Send(frame);
}

void Channel::Send(const Payload& bytes) {
  std::string small;
  for (const std::string_view piece : bytes.pieces()) {
    if (piece.size() < kLargePiece) {
      small += piece;
      continue;
    }
    Queue(small);
    small.clear();
    Queue(piece);
  }
  Queue(small);
}

void Channel::Queue(std::string_view bytes) {
  if (queue_.empty()) bytes.remove_prefix(Write(bytes));
  if (bytes.empty()) return;
  queued_ += bytes.size();
  queue_.emplace_back(bytes);
}

std::size_t Channel::Write(std::string_view bytes) {
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t count = write(port_.get(), bytes.data() + written, bytes.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    written += static_cast<std::size_t>(count);
  }
  return written;
}

void Channel::WriteQueue() {
  while (!queue_.empty()) {
    const std::string& front = queue_.front();
    written_ += Write(std::string_view(front).substr(written_));
    if (written_ < front.size()) return;
    queued_ -= front.size();
    queue_.pop_front();
    written_ = 0;
  }
}

}  // namespace husk::agent
