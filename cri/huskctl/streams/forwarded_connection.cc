#include "cri/huskctl/streams/forwarded_connection.h"

#include <algorithm>
#include <boost/asio/write.hpp>

#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"

namespace husk::huskctl {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

// v5 first: v4 cannot tell the pod that no more will come.
constexpr char kV5[] = "v5.channel.k8s.io";
constexpr char kProtocols[] = "v5.channel.k8s.io,v4.channel.k8s.io";

enum Channel : char { kData = 0, kError = 1, kHalfClose = '\xff' };

constexpr auto kLinger = std::chrono::seconds(5);
constexpr std::size_t kLongestError = 4096;
constexpr std::size_t kPortBytes = 2;

}  // namespace

ForwardedConnection::ForwardedConnection(boost::asio::io_context& io, tcp::socket local, std::uint16_t remote_port,
                                         std::function<void(const Status&)> complain)
    : io_(io), local_(std::move(local)), linger_(io), port_(remote_port), complain_(std::move(complain)) {
  error_code ignored;
  local_.set_option(tcp::no_delay(true), ignored);
}

void ForwardedConnection::Start(const StatusOr<std::string>& url, const std::string& certificate_authority) {
  if (!url.ok()) return Fail(url.status());
  StatusOr<std::shared_ptr<WebSocket>> remote =
      WebSocket::Create(io_, *url, {.protocols = kProtocols, .certificate_authority = certificate_authority});
  if (!remote.ok()) return Fail(remote.status());
  remote_ = *std::move(remote);
  remote_->Open([self = shared_from_this()](const Status& opened) {
    if (!opened.ok()) return self->Fail(opened);
    self->OnOpened();
  });
}

void ForwardedConnection::OnOpened() {
  half_close_ = remote_->protocol() == kV5;
  ReadRemote();
  ReadLocal();
}

// ---- from the pod ---------------------------------------------------------------------------------------------------

bool ForwardedConnection::PortPrefix::Strip(std::uint16_t port, std::string_view* message) {
  const std::size_t taken = std::min(kPortBytes - bytes.size(), message->size());
  bytes.append(message->substr(0, taken));
  message->remove_prefix(taken);
  if (bytes.size() < kPortBytes) return true;
  return static_cast<unsigned char>(bytes[0]) == (port & 0xff) && static_cast<unsigned char>(bytes[1]) == port >> 8;
}

void ForwardedConnection::ReadRemote() {
  remote_->Read([self = shared_from_this()](const StatusOr<std::string>& message) {
    if (!message.ok()) return self->OnRemoteEnd(message.status());
    self->OnMessage(*message);
  });
}

void ForwardedConnection::OnMessage(const std::string& message) {
  if (message.empty()) return ReadRemote();
  std::string_view bytes = std::string_view(message).substr(1);
  switch (message.front()) {
    case kData:
      if (data_port_.Strip(port_, &bytes)) return OnData(bytes);
      break;
    case kError:
      if (!error_port_.Strip(port_, &bytes)) break;
      error_text_.append(bytes.substr(0, kLongestError - std::min(kLongestError, error_text_.size())));
      return ReadRemote();
    case kHalfClose:
      return OnHalfClose(bytes);
    default:
      break;
  }
  Fail(absl::InternalError(absl::StrCat("the streaming server sends what is not for port ", port_, " (channel ",
                                        static_cast<unsigned char>(message.front()), ")")));
}

void ForwardedConnection::OnData(std::string_view bytes) {
  if (bytes.empty() || over_) return ReadRemote();
  to_local_ = std::string(bytes);
  boost::asio::async_write(local_, boost::asio::buffer(to_local_),
                           [self = shared_from_this()](const error_code& error, std::size_t) {
                             // A client that has gone is no matter of the user's.
                             if (error) return self->Fail(absl::OkStatus());
                             self->ReadRemote();
                           });
}

void ForwardedConnection::OnHalfClose(std::string_view channel) {
  if (channel == std::string_view("\0", 1)) {
    remote_ended_ = true;
    error_code ignored;
    local_.shutdown(tcp::socket::shutdown_send, ignored);
    CloseIfBothEnded();
  }
  ReadRemote();
}

void ForwardedConnection::OnRemoteEnd(const Status& why) {
  if (!error_text_.empty()) return Fail(absl::UnavailableError(Printable(error_text_, kLongestError)));
  if (!over_ && !absl::IsOutOfRange(why)) return Fail(why);
  remote_->Abort();
  EndLocal();
}

// ---- to the pod -----------------------------------------------------------------------------------------------------

void ForwardedConnection::ReadLocal() {
  reads_local_ = true;
  local_.async_read_some(
      boost::asio::buffer(buffer_),
      [self = shared_from_this()](const error_code& error, std::size_t count) { self->OnLocal(error, count); });
}

void ForwardedConnection::OnLocal(const error_code& error, std::size_t count) {
  if (error == boost::asio::error::eof) return OnLocalEnd();
  if (error) return Fail(absl::OkStatus());
  if (over_) return ReadLocal();
  std::string message(1, static_cast<char>(kData));
  message.append(buffer_.data(), count);
  // What cannot be written shows at the reading too.
  remote_->Write(std::move(message), [self = shared_from_this()](const Status& /*written*/) { self->ReadLocal(); });
}

void ForwardedConnection::OnLocalEnd() {
  local_ended_ = true;
  if (over_) return EndLocal();
  if (!half_close_) return;
  remote_->Write(std::string({static_cast<char>(kHalfClose), static_cast<char>(kData)}), nullptr);
  CloseIfBothEnded();
}

// ---- the end --------------------------------------------------------------------------------------------------------

void ForwardedConnection::CloseIfBothEnded() {
  if (!local_ended_ || !remote_ended_ || over_) return;
  over_ = true;
  remote_->Close([self = shared_from_this()] { self->EndLocal(); });
}

void ForwardedConnection::Fail(const Status& why) {
  if (!why.ok() && !over_) complain_(why);
  over_ = true;
  if (remote_) remote_->Abort();
  if (!why.ok()) return EndLocal();
  linger_.cancel();
  error_code ignored;
  local_.close(ignored);
}

void ForwardedConnection::EndLocal() {
  over_ = true;
  error_code ignored;
  if (!local_.is_open()) return;
  if (local_ended_) {
    linger_.cancel();
    local_.close(ignored);
    return;
  }
  // To close with bytes unread would reset the connection, and could cost the client the last that it was sent.
  local_.shutdown(tcp::socket::shutdown_send, ignored);
  linger_.expires_after(kLinger);
  linger_.async_wait([self = shared_from_this()](const error_code& error) {
    error_code closed;
    if (!error) self->local_.close(closed);
  });
  if (!reads_local_) ReadLocal();
}

}  // namespace husk::huskctl
