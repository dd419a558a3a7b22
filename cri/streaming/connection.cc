#include "cri/streaming/connection.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/post.hpp>

#include "absl/strings/str_cat.h"
#include "cri/streaming/final_status.h"
#include "cri/streaming/http_head.h"
#include "cri/streaming/ports.h"

namespace husk::cri {
namespace {

using boost::system::error_code;

// Answers to pings and to new streams that a client does not read; more stop the reading.
constexpr std::size_t kControlLimit = std::size_t{512} << 10;
constexpr auto kKeepAliveInterval = std::chrono::seconds(10);

StreamRole RoleOf(sandbox::OutputKind kind) {
  return kind == sandbox::OutputKind::kStandardOutput ? StreamRole::kOutput : StreamRole::kErrorOutput;
}

std::string_view Words(const Status& status) {
  return {status.message().data(), status.message().size()};
}

// The ports of a client of WebSocket: those that were asked for when its URL was made, else those in the URL.
Status FindPorts(const std::string& target, bool base64, std::vector<std::uint16_t>* ports) {
  if (ports->empty()) {
    HUSK_ASSIGN_OR_RETURN(*ports, PortsOfQuery(target));
  }
  const std::size_t most = base64 ? PortStreams::kMaximumBase64Ports : PortStreams::kMaximumPorts;
  if (!ports->empty() && ports->size() <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("port: over this protocol 1 to ", most, " ports must be named: ?port=80&port=81"));
}

}  // namespace

Connection::Connection(boost::asio::io_context& io, std::unique_ptr<ByteStream> stream,
                       std::shared_ptr<const ConnectionParts> parts, const StreamTimeouts& timeouts)
    : io_(io),
      stream_(std::move(stream)),
      parts_(std::move(parts)),
      timeouts_(timeouts),
      timer_(io),
      watch_timer_(io),
      expiry_timer_(io),
      session_({.send =
                    [this](sandbox::OutputKind kind, std::string bytes) {
                      boost::asio::post(io_, [self = shared_from_this(), kind, bytes = std::move(bytes)] {
                        self->Send(kind, bytes);
                      });
                    },
                .read_on = [this] { boost::asio::post(io_, [self = shared_from_this()] { self->Read(); }); }}),
      exchange_({.output =
                     [this](std::uint64_t connection, std::string bytes) {
                       boost::asio::post(io_, [self = shared_from_this(), connection, bytes = std::move(bytes)] {
                         self->SendForwarded(connection, bytes);
                       });
                     },
                 .output_ended =
                     [this](std::uint64_t connection) {
                       PostToPorts([connection](PortStreams& ports) { ports.OutputEnded(connection); });
                     },
                 .over =
                     [this](std::uint64_t connection, const Status& status) {
                       PostToPorts([connection, status](PortStreams& ports) { ports.Over(connection, status); });
                     },
                 .read_on = [this] { boost::asio::post(io_, [self = shared_from_this()] { self->Read(); }); }}) {}

template <typename Tell>
void Connection::PostToPorts(Tell tell) {
  boost::asio::post(io_, [self = shared_from_this(), tell] {
    if (self->state_ != State::kRunning) return;
    tell(*self->ports_);
    self->Flush();
  });
}

void Connection::Start() {
  Arm(timeouts_.head, &Connection::OnHeadTimeout);
  stream_->Handshake([self = shared_from_this()](const error_code& error) {
    if (error) return self->Close();
    self->Read();
  });
}

// ---- reading --------------------------------------------------------------------------------------------------------

bool Connection::MayRead() {
  if (state_ == State::kClosed || reading_ || close_when_written_) return false;
  const std::size_t control = out_.size() - std::min(out_payload_, out_.size());
  if (control > kControlLimit) return false;
  return state_ == State::kFinishing || !(session_.input_full() || exchange_.input_full());
}

void Connection::Read() {
  if (!MayRead()) {
    if (!reading_ && state_ != State::kClosed) Watch();
    return;
  }
  reading_ = true;
  stream_->ReadSome(boost::asio::buffer(buffer_),
                    [self = shared_from_this()](const error_code& error, std::size_t count) {
                      self->reading_ = false;
                      if (self->state_ == State::kClosed) return;
                      if (error) return self->PeerGone(error.message());
                      self->OnBytes(count);
                      self->Read();
                    });
}

void Connection::OnBytes(std::size_t count) {
  const std::string_view bytes(buffer_.data(), count);
  if (state_ != State::kHead) return OnWireBytes(bytes);
  head_.append(bytes);
  OnHead();
}

void Connection::OnHead() {
  const StatusOr<std::optional<HttpHead>> head = TakeHttpHead(&head_);
  if (!head.ok()) {
    const bool long_head = absl::IsResourceExhausted(head.status());
    return Refuse(HttpRefusal(long_head ? 431 : 400, long_head ? "Request Header Fields Too Large" : "Bad Request",
                              Words(head.status())));
  }
  if (!*head) return;
  const std::string rest = std::exchange(head_, std::string());
  const auto target = ParseStreamTarget((*head)->target);
  auto request = target ? parts_->take_token(target->token) : std::nullopt;
  if (!request || request->kind != target->kind) {
    return Refuse(
        HttpRefusal(404, "Not Found", "there is no such stream: its URL was used, or is older than a minute"));
  }
  UpgradeAnswer answer = AnswerUpgrade(**head, request->kind);
  if (!answer.protocol) return Refuse(answer.response);
  if (request->kind == StreamRequest::Kind::kPortForward && answer.protocol->websocket) {
    const Status known = FindPorts((*head)->target, answer.protocol->base64, &request->ports);
    if (!known.ok()) return Refuse(HttpRefusal(400, "Bad Request", Words(known)));
  }
  Upgrade(std::move(answer), *std::move(request), rest);
}

void Connection::Refuse(const std::string& response) {
  out_.append(response);
  close_when_written_ = true;
  Flush();
}

void Connection::OnWireBytes(std::string_view bytes) {
  std::vector<WireEvent> events;
  const Status received = wire_->Receive(bytes, &events);
  for (WireEvent& event : events) {
    if (state_ == State::kClosed) return;
    OnEvent(event);
  }
  if (state_ == State::kClosed) return;
  if (!received.ok()) {
    spdlog::warn("streaming: {} a client breaks the protocol: {}", Subject(), Words(received));
    gone_.request_stop();
    close_when_written_ = true;
    Arm(timeouts_.drain, &Connection::Close);
  }
  Flush();
}

void Connection::OnEvent(WireEvent& event) {
  if (ports_ != nullptr && event.kind != WireEvent::Kind::kClosing) return OnPortEvent(event);
  const auto role = roles_ ? roles_->RoleOf(event.stream) : std::nullopt;
  switch (event.kind) {
    case WireEvent::Kind::kOpened:
      if (state_ != State::kOpening || !roles_->Open(event.stream, event.headers)) return wire_->Refuse(event.stream);
      opened_.push_back(event.stream);
      return RunIfComplete();
    case WireEvent::Kind::kData:
      return OnData(event.stream, std::move(event.data));
    case WireEvent::Kind::kEnded:
    case WireEvent::Kind::kReset:
      if (role == StreamRole::kInput) session_.EndInput();
      return;
    case WireEvent::Kind::kClosing:
      // Over SPDY that only means that no more streams will be opened.
      if (protocol_.websocket) PeerGone("it has closed");
      return;
  }
}

void Connection::OnPortEvent(WireEvent& event) {
  if (state_ == State::kRunning) {
    ports_->OnEvent(event, PortStreams::Clock::now());
    return AwaitExpiry();
  }
  if (event.kind == WireEvent::Kind::kOpened) wire_->Refuse(event.stream);
}

void Connection::OnData(WireStream stream, std::string bytes) {
  const auto role = roles_->RoleOf(stream);
  if (state_ == State::kFinishing || !role) return;
  if (*role == StreamRole::kInput) session_.TakeInput(std::move(bytes));
  if (*role != StreamRole::kResize) return;
  if (const auto size = sizes_.Take(bytes)) session_.TakeSize(*size);
}

void Connection::PeerGone(const std::string& why) {
  if (state_ == State::kOpening || state_ == State::kRunning) {
    spdlog::debug("streaming: {} the client is gone: {}", Subject(), why);
  }
  gone_.request_stop();
  // A WebSocket client waits for the answer to its close.
  close_when_written_ = true;
  Arm(timeouts_.drain, &Connection::Close);
  Flush();
}

// ---- opening --------------------------------------------------------------------------------------------------------

void Connection::Upgrade(UpgradeAnswer answer, StreamRequest request, const std::string& rest) {
  request_ = std::move(request);
  protocol_ = *std::move(answer.protocol);
  wire_ = MakeWire(protocol_);
  out_.append(answer.response);
  if (request_.kind == StreamRequest::Kind::kPortForward) {
    Forward();
    if (state_ != State::kClosed) OnWireBytes(rest);
    return;
  }
  roles_.emplace(request_, protocol_);
  state_ = State::kOpening;
  Arm(timeouts_.streams, &Connection::OnOpeningTimeout);
  if (protocol_.websocket) {
    for (const StreamRole role : {StreamRole::kOutput, StreamRole::kErrorOutput, StreamRole::kStatus}) {
      const auto stream = roles_->StreamOf(role);
      if (!stream) continue;
      // An empty message on one channel: by that a client sees that it is through.
      wire_->Send(*stream, "");
      break;
    }
  }
  RunIfComplete();
  if (state_ != State::kClosed) OnWireBytes(rest);
}

void Connection::RunIfComplete() {
  if (roles_->complete()) Run();
}

void Connection::Forward() {
  ports_ = std::make_unique<PortStreams>(
      PortStreams::Options{.websocket = protocol_.websocket, .ports = request_.ports, .patience = timeouts_.streams},
      *wire_, exchange_);
  Run();
  Flush();
}

void Connection::Run() {
  timer_.cancel();
  state_ = State::kRunning;
  const Status running = parts_->run(shared_from_this(), request_);
  if (!running.ok()) End(running);
}

void Connection::OnHeadTimeout() {
  if (state_ == State::kHead) Close();
}

void Connection::OnOpeningTimeout() {
  if (state_ != State::kOpening) return;
  End(absl::DeadlineExceededError(absl::StrCat("the client did not open its streams in time: ", roles_->missing())));
}

// ---- writing --------------------------------------------------------------------------------------------------------

void Connection::Send(sandbox::OutputKind kind, const std::string& bytes) {
  if (state_ == State::kClosed || close_when_written_) return session_.Sent(bytes.size());
  const auto stream = roles_->StreamOf(RoleOf(kind));
  if (!stream) return session_.Sent(bytes.size());
  wire_->Send(*stream, bytes);
  out_payload_ += bytes.size();
  Flush();
}

void Connection::SendForwarded(std::uint64_t connection, const std::string& bytes) {
  const bool running = state_ == State::kRunning && !close_when_written_;
  if (!running || !ports_->Output(connection, bytes)) return exchange_.Sent(bytes.size());
  out_payload_ += bytes.size();
  Flush();
}

void Connection::Flush() {
  if (state_ == State::kClosed) return;
  if (wire_ != nullptr) out_.append(wire_->TakeOutput());
  if (!writing_.empty()) return;
  if (out_.empty()) {
    if (close_when_written_) Close();
    return;
  }
  writing_ = std::exchange(out_, std::string());
  writing_payload_ = std::exchange(out_payload_, 0);
  stream_->WriteAll(boost::asio::buffer(writing_),
                    [self = shared_from_this()](const error_code& error, std::size_t) { self->OnWritten(error); });
}

void Connection::OnWritten(const error_code& error) {
  writing_.clear();
  const std::size_t sent = std::exchange(writing_payload_, 0);
  if (ports_ != nullptr) {
    exchange_.Sent(sent);
  } else {
    session_.Sent(sent);
  }
  if (state_ == State::kClosed) return;
  if (error) {
    close_when_written_ = true;
    out_.clear();
    return PeerGone(error.message());
  }
  Flush();
  if (state_ == State::kFinishing) Arm(writing_.empty() ? timeouts_.drain : timeouts_.stalled_end, &Connection::Close);
  if (!reading_) Read();
}

// ---- the end --------------------------------------------------------------------------------------------------------

void Connection::Finish(StatusOr<std::int32_t> outcome) {
  boost::asio::post(io_, [self = shared_from_this(), outcome = std::move(outcome)] { self->End(outcome); });
}

void Connection::Cut() {
  boost::asio::post(io_, [self = shared_from_this()] { self->Close(); });
}

void Connection::End(const StatusOr<std::int32_t>& outcome) {
  if (state_ == State::kClosed || state_ == State::kFinishing) return;
  state_ = State::kFinishing;
  session_.IgnoreInput();
  // The output is on its way already. Now the status, the ends of all streams, the end of the connection; then the
  // client's turn: closing before it has read everything could cost it the last bytes.
  if (ports_ != nullptr) ports_->EndAll(outcome.status());
  const std::string status = FinalStatus(outcome, protocol_.json_status);
  const auto stream = roles_ ? roles_->StreamOf(StreamRole::kStatus) : std::nullopt;
  if (stream && !status.empty()) wire_->Send(*stream, status);
  for (const WireStream opened : opened_) wire_->SendEnd(opened);
  wire_->SendClose();
  Arm(timeouts_.stalled_end, &Connection::Close);
  Flush();
  Read();
}

void Connection::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  gone_.request_stop();
  timer_.cancel();
  watch_timer_.cancel();
  expiry_timer_.cancel();
  stream_->Close();
}

void Connection::AwaitExpiry() {
  const auto next = ports_->next_expiry();
  if (!next || awaiting_expiry_) return;
  awaiting_expiry_ = true;
  expiry_timer_.expires_at(*next);
  expiry_timer_.async_wait([self = shared_from_this()](const error_code& error) {
    self->awaiting_expiry_ = false;
    if (error || self->state_ != State::kRunning) return;
    self->ports_->Expire(PortStreams::Clock::now());
    self->Flush();
    self->AwaitExpiry();
  });
}

std::string Connection::Subject() const {
  if (request_.kind == StreamRequest::Kind::kPortForward) return absl::StrCat("pod=", request_.pod_id);
  return absl::StrCat("container=", request_.container_id);
}

void Connection::Arm(std::chrono::milliseconds time, void (Connection::*expired)()) {
  timer_.expires_after(time);
  timer_.async_wait([self = shared_from_this(), expired](const error_code& error) {
    if (!error && self->state_ != State::kClosed) (self.get()->*expired)();
  });
}

// A client that is not read from could go unnoticed (see Wire::KeepAlive), and a client of WebSocket waits for answers
// to pings that stand behind what is not read.
void Connection::Watch() {
  if (watching_) return;
  watching_ = true;
  watch_timer_.expires_after(timeouts_.watch);
  watch_timer_.async_wait([self = shared_from_this()](const error_code& error) {
    self->watching_ = false;
    if (error || self->state_ == State::kClosed || self->reading_) return;
    if (self->stream_->PeerHasClosed()) {
      self->gone_.request_stop();
      return self->Close();
    }
    const auto now = std::chrono::steady_clock::now();
    if (self->wire_ != nullptr && now - self->kept_alive_ >= kKeepAliveInterval) {
      self->kept_alive_ = now;
      self->wire_->KeepAlive();
      self->Flush();
    }
    self->Read();
  });
}

}  // namespace husk::cri
