#include "agent/client/channel.h"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "agent/client/opening.h"
#include "agent/client/unix_socket.h"
#include "agent/proto/agent.pb.h"
#include "agent/proto/channel.h"

namespace husk::agent {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::milliseconds;

constexpr std::string_view kService = "husk.agent.v1.Agent";
constexpr std::uint32_t kHelloStream = 1;
constexpr std::uint32_t kLastStream = 0x7fffffff;

constexpr milliseconds kFirstDelay{10};
constexpr milliseconds kLongestDelay{500};
// A connection that lasted longer was a good one: its successor is tried without a pause.
constexpr milliseconds kGoodConnection{1000};
constexpr milliseconds kAttemptInterval{150};
// Half a minute of silence: perhaps the connection itself is the trouble.
constexpr int kMaximumAttempts = 200;
// From the first sign of life to the end of the opening.
constexpr milliseconds kOpeningLimit{10'000};

constexpr std::size_t kReadSize = std::size_t{64} << 10;
constexpr std::size_t kWriteSize = std::size_t{64} << 10;
constexpr char kPaddingTag = 5 << 3;  // RpcRequest's reserved field 5, a varint

// `padding`: a field that the guest skips, with a value below 128; none is sent for 0.
std::string EncodeRequest(std::uint32_t stream, const std::string& method, const std::string& payload,
                          Context::Clock::time_point deadline, char padding) {
  v1::RpcRequest request;
  request.set_service(std::string(kService));
  request.set_method(method);
  request.set_payload(payload);
  if (deadline != Context::Clock::time_point::max()) {
    const auto left = std::max(Context::Clock::duration(1), deadline - Context::Clock::now());
    request.set_timeout_nano(std::chrono::duration_cast<std::chrono::nanoseconds>(left).count());
  }
  std::string message = request.SerializeAsString();
  if (padding != 0) message += {kPaddingTag, padding};
  return ttrpc::Encode({.stream_id = stream, .payload = std::move(message)});
}

// The guest would wait for the rest of the marker before it reads the end of what was written.
bool EndsAsIfMarkerBegan(std::string_view bytes) {
  for (std::size_t size = kChannelMarker.size() - 1; size > 0; --size) {
    if (bytes.ends_with(kChannelMarker.substr(0, size))) return true;
  }
  return false;
}

std::string ErrnoText(int error) {
  return std::string(ErrnoStatus(error, "connect").message());
}

}  // namespace

struct Channel::Connection {
  explicit Connection(asio::io_context& io) : socket(io), timer(io), made(Context::Clock::now()) {}

  // Appends a request, masked, and in such a way that what is written may end with it.
  void AppendRequest(std::string& out, std::uint32_t stream, const std::string& method, const std::string& payload,
                     Context::Clock::time_point deadline) {
    for (char padding = 0;; ++padding) {
      std::string bytes = EncodeRequest(stream, method, payload, deadline, padding);
      MaskChannelBytes(opening.nonce(), position, bytes.data(), bytes.size());
      // Few values of the last byte are bad, so this ends.
      if (EndsAsIfMarkerBegan(bytes)) continue;
      position += bytes.size();
      out += bytes;
      return;
    }
  }

  struct Sent {
    std::uint64_t sequence = 0;
    std::shared_ptr<Call> call;  // none: abandoned
  };

  asio::local::stream_protocol::socket socket;
  asio::steady_timer timer;  // of the opening
  Context::Clock::time_point made;
  Opening opening;
  std::optional<Context::Clock::time_point> opening_limit;
  bool echoed = false;  // frames follow
  bool open = false;    // Hello was answered: requests may be sent
  std::array<char, kReadSize> read_buffer{};
  ttrpc::Decoder decoder;
  bool writing = false;
  std::string write_buffer;
  std::uint64_t position = 0;  // of the mask
  std::uint32_t next_stream = kHelloStream + 2;
  std::map<std::uint32_t, Sent> sent;
  std::size_t abandoned = 0;
};

Channel::Channel(asio::io_context& io, std::string socket_path)
    : socket_path_(std::move(socket_path)), io_(io), reconnect_timer_(io), delay_(kFirstDelay) {}

Channel::~Channel() = default;

// ---- any thread -----------------------------------------------------------------------------------------------------

StatusOr<std::string> Channel::Request(const Context& context, const std::string& method, std::string payload) {
  HUSK_RETURN_IF_ERROR(context.Check());
  // Room for the fields around it.
  if (payload.size() > ttrpc::kMaximumPayload - 256) {
    return absl::InvalidArgumentError(absl::StrCat("a request of ", payload.size(), " bytes; at most ",
                                                   ttrpc::kMaximumPayload - 256, " fit into a frame"));
  }
  const auto call = std::make_shared<Call>(method, std::move(payload), context.deadline());
  asio::post(io_, [self = shared_from_this(), call] { self->Start(call); });
  if (auto outcome = call->Wait(context)) return *std::move(outcome);
  asio::post(io_, [self = shared_from_this(), call] { self->Abandon(call); });
  const Status ended = context.Check();
  const std::string reason = trouble();
  return reason.empty() ? ended : Status(ended.code(), absl::StrCat(ended.message(), "; the channel: ", reason));
}

void Channel::Break(const std::string& trouble) {
  asio::post(io_, [self = shared_from_this(), trouble] {
    if (self->connection_) self->Drop(self->connection_, trouble);
  });
}

void Channel::Close() {
  asio::post(io_, [self = shared_from_this()] {
    self->closed_ = true;
    self->reconnect_timer_.cancel();
    if (self->connection_) self->Drop(self->connection_, "closed");
    self->FailAll(absl::UnavailableError("the channel was closed"));
  });
}

void Channel::SetTrouble(const std::string& trouble) {
  const MutexLock lock(mutex_);
  trouble_ = trouble;
}

std::string Channel::trouble() const {
  const MutexLock lock(mutex_);
  return trouble_;
}

// ---- the I/O thread: requests ---------------------------------------------------------------------------------------

void Channel::Start(const std::shared_ptr<Call>& call) {
  if (closed_) {
    call->Finish(absl::UnavailableError("the channel was closed"));
    return;
  }
  waiting_.emplace(next_sequence_++, call);
  if (connection_) {
    Pump(connection_);
  } else if (!reconnecting_) {
    Connect();
  }
}

void Channel::Abandon(const std::shared_ptr<Call>& call) {
  if (std::erase_if(waiting_, [&](const auto& entry) { return entry.second == call; }) > 0 || !connection_) return;
  for (auto& [stream, sent] : connection_->sent) {
    if (sent.call != call) continue;
    sent.call.reset();
    ++connection_->abandoned;
  }
  if (connection_->abandoned > kMaximumAbandoned) Drop(connection_, "the guest leaves too many calls unanswered");
}

void Channel::FailAll(const Status& status) {
  for (const auto& [sequence, call] : std::exchange(waiting_, {})) call->Finish(status);
}

void Channel::Pump(const ConnectionPointer& connection) {
  if (!connection->open || connection->writing) return;
  std::string bytes;
  while (!waiting_.empty() && connection->sent.size() < kMaximumInFlight && bytes.size() < kWriteSize) {
    if (connection->next_stream >= kLastStream) {
      Drop(connection, "all stream ids are used up");
      return;
    }
    const auto first = waiting_.begin();
    const std::uint32_t stream = std::exchange(connection->next_stream, connection->next_stream + 2);
    connection->AppendRequest(bytes, stream, first->second->method(), first->second->payload(),
                              first->second->deadline());
    connection->sent.emplace(stream, Connection::Sent{.sequence = first->first, .call = first->second});
    waiting_.erase(first);
  }
  if (bytes.empty()) return;
  Write(connection, std::move(bytes));
}

// ---- the I/O thread: connecting -------------------------------------------------------------------------------------

void Channel::Connect() {
  UnixConnection made = ConnectUnixSocket(socket_path_);
  if (made.error != 0) {
    SetTrouble(ErrnoText(made.error));
    const bool nobody = made.error == ENOENT || made.error == ECONNREFUSED;
    if (nobody && was_connected_) {
      FailAll(absl::UnavailableError(absl::StrCat("nobody listens any more: ", trouble())));
    } else if (nobody || made.error == EAGAIN || made.error == EINTR || made.error == EMFILE || made.error == ENFILE) {
      ConnectLater();
    } else {
      FailAll(Status(absl::ErrnoToStatusCode(made.error), ErrnoText(made.error)));
    }
    return;
  }
  const auto connection = std::make_shared<Connection>(io_);
  error_code error;
  if (connection->socket.assign(asio::local::stream_protocol(), made.fd.get(), error)) {
    SetTrouble(error.message());
    ConnectLater();
    return;
  }
  static_cast<void>(made.fd.Release());  // the socket's now
  was_connected_ = true;
  connection_ = connection;
  SetTrouble("the guest has not answered yet");
  Read(connection);
  Attempt(connection);
}

void Channel::ConnectLater() {
  reconnecting_ = true;
  reconnect_timer_.expires_after(delay_);
  delay_ = std::min(delay_ * 2, kLongestDelay);
  reconnect_timer_.async_wait([self = shared_from_this()](const error_code&) {
    self->reconnecting_ = false;
    if (!self->closed_ && !self->connection_ && !self->waiting_.empty()) self->Connect();
  });
}

void Channel::Attempt(const ConnectionPointer& connection) {
  if (connection != connection_ || connection->open) return;
  if (connection->opening_limit && Context::Clock::now() > *connection->opening_limit) {
    Drop(connection, "the guest did not finish the opening");
    return;
  }
  // Bytes that still wait to be written will do as well as new ones.
  if (!connection->writing && !connection->opening_limit) {
    if (connection->opening.attempts() >= kMaximumAttempts) {
      Drop(connection, "the guest does not answer");
      return;
    }
    std::string bytes = connection->opening.NextAttempt();
    connection->position = 0;
    connection->AppendRequest(bytes, kHelloStream, "Hello", v1::HelloRequest().SerializeAsString(),
                              Context::Clock::time_point::max());
    Write(connection, std::move(bytes));
  }
  connection->timer.expires_after(kAttemptInterval);
  connection->timer.async_wait([self = shared_from_this(), connection](const error_code& error) {
    if (!error) self->Attempt(connection);
  });
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): connection_ itself is passed, and cleared
void Channel::Drop(ConnectionPointer connection, const std::string& trouble) {
  if (connection != connection_) return;
  connection_.reset();
  error_code ignored;
  connection->timer.cancel();
  // It is closed whatever close(2) says.
  static_cast<void>(connection->socket.close(ignored));
  SetTrouble(trouble);
  for (const auto& [stream, sent] : connection->sent) {
    if (sent.call) waiting_.emplace(sent.sequence, sent.call);
  }
  connection->sent.clear();
  if (connection->open && Context::Clock::now() - connection->made > kGoodConnection) delay_ = kFirstDelay;
  if (!closed_ && !waiting_.empty() && !reconnecting_) ConnectLater();
}

// ---- the I/O thread: bytes ------------------------------------------------------------------------------------------

void Channel::Write(const ConnectionPointer& connection, std::string bytes) {
  connection->writing = true;
  connection->write_buffer = std::move(bytes);
  asio::async_write(connection->socket, asio::buffer(connection->write_buffer),
                    [self = shared_from_this(), connection](const error_code& error, std::size_t) {
                      connection->writing = false;
                      if (error) {
                        self->Drop(connection, absl::StrCat("write: ", error.message()));
                      } else if (connection == self->connection_) {
                        self->Pump(connection);
                      }
                    });
}

void Channel::Read(const ConnectionPointer& connection) {
  connection->socket.async_read_some(
      asio::buffer(connection->read_buffer),
      [self = shared_from_this(), connection](const error_code& error, std::size_t count) {
        if (connection != self->connection_) return;
        if (error) {
          self->Drop(connection, absl::StrCat("read: ", error.message()));
          return;
        }
        self->Received(connection, std::string_view(connection->read_buffer.data(), count));
        if (connection == self->connection_) self->Read(connection);
      });
}

void Channel::Received(const ConnectionPointer& connection, std::string_view bytes) {
  if (connection->echoed) {
    connection->decoder.Append(bytes);
  } else {
    const std::optional<std::string> rest = connection->opening.Receive(bytes);
    if ((rest || connection->opening.guest_listens()) && !connection->opening_limit) {
      connection->opening_limit = Context::Clock::now() + kOpeningLimit;
    }
    if (!rest) return;
    connection->echoed = true;
    connection->decoder.Append(*rest);
  }
  while (connection == connection_) {
    auto frame = connection->decoder.Next();
    if (frame.ok() && !frame->has_value()) break;
    const Status status = frame.ok() ? Handle(connection, **frame) : frame.status();
    if (!status.ok()) Drop(connection, absl::StrCat("the guest broke the protocol: ", status.message()));
  }
  if (connection == connection_) Pump(connection);
}

Status Channel::Handle(const ConnectionPointer& connection, const ttrpc::Frame& frame) {
  HUSK_ASSIGN_OR_RETURN(Answer answer, ReadAnswer(frame));
  if (!connection->open && frame.stream_id == kHelloStream) return HandleHello(connection, answer);
  const auto sent = connection->sent.find(frame.stream_id);
  if (sent == connection->sent.end()) {
    return absl::InvalidArgumentError(absl::StrCat("an answer to the unknown stream ", frame.stream_id));
  }
  if (sent->second.call) {
    sent->second.call->Finish(std::move(answer.outcome));
  } else {
    --connection->abandoned;
  }
  connection->sent.erase(sent);
  return absl::OkStatus();
}

Status Channel::HandleHello(const ConnectionPointer& connection, const Answer& answer) {
  HUSK_RETURN_IF_ERROR(CheckHello(answer));
  connection->open = true;
  connection->timer.cancel();
  SetTrouble("");
  return absl::OkStatus();
}

}  // namespace husk::agent
