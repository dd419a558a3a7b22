#include "cri/huskctl/streams/web_socket.h"

#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <cstdint>
#include <deque>
#include <type_traits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"
#include "cri/huskctl/streams/stream_url.h"

namespace husk::huskctl {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using boost::system::error_code;

using PlainStream = tcp::socket;
using TlsStream = beast::ssl_stream<tcp::socket>;

constexpr std::size_t kLargestMessage = std::size_t{16} << 20;
constexpr std::size_t kWriteBuffer = std::size_t{64} << 10;
constexpr std::size_t kMostShown = 2048;

// A server whose host has died is noticed after about a minute.
void KeepAlive(tcp::socket& socket) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  for (const auto& [option, value] : {std::pair(TCP_KEEPIDLE, 30), {TCP_KEEPINTVL, 10}, {TCP_KEEPCNT, 3}}) {
    setsockopt(socket.native_handle(), IPPROTO_TCP, option, &value, sizeof(value));
  }
}

template <typename Stream>
class WebSocketOver final : public WebSocket, public std::enable_shared_from_this<WebSocketOver<Stream>> {
 public:
  // `tls` is null for a plain stream.
  WebSocketOver(asio::io_context& io, StreamUrl url, WebSocketOptions options, std::unique_ptr<asio::ssl::context> tls)
      : url_(std::move(url)),
        options_(std::move(options)),
        tls_(std::move(tls)),
        resolver_(io),
        deadline_(io),
        ping_timer_(io),
        stream_(MakeStream(io, tls_.get())) {}

  void Open(std::function<void(const Status&)> done) override;
  [[nodiscard]] const std::string& protocol() const override { return protocol_; }
  void Read(std::function<void(StatusOr<std::string>)> done) override;
  void Write(std::string message, std::function<void(const Status&)> done) override;
  void Close(std::function<void()> done) override;
  void Abort() override;

 private:
  struct Pending {
    std::string message;
    std::function<void(const Status&)> done;
  };
  using std::enable_shared_from_this<WebSocketOver<Stream>>::shared_from_this;

  static websocket::stream<Stream> MakeStream(asio::io_context& io, [[maybe_unused]] asio::ssl::context* tls) {
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      return websocket::stream<Stream>(io, *tls);
    } else {
      return websocket::stream<Stream>(io);
    }
  }
  [[nodiscard]] std::string Place() const { return absl::StrCat("the streaming server at ", url_.authority()); }
  tcp::socket& socket() { return beast::get_lowest_layer(stream_); }

  void Connect(const tcp::resolver::results_type& found);
  void OnConnected();
  void ShakeHands();
  void OnHandshake(const error_code& error);
  void Opened(const Status& status);
  Status TlsFailure(const error_code& error);
  Status Refusal() const;
  Status ReadFailure(const error_code& error) const;
  void WriteNext();
  void OnWritten(const error_code& error);
  void PingLater();
  void SayGoodbye();

  const StreamUrl url_;
  const WebSocketOptions options_;
  const std::unique_ptr<asio::ssl::context> tls_;
  tcp::resolver resolver_;
  asio::steady_timer deadline_;  // of opening and of closing
  asio::steady_timer ping_timer_;
  websocket::stream<Stream> stream_;
  std::function<void(const Status&)> opened_;
  std::function<void()> closed_;
  bool late_ = false;     // with opening
  bool closing_ = false;  // or closed
  bool goodbye_said_ = false;
  websocket::response_type response_;
  std::string protocol_;
  beast::flat_buffer buffer_;
  std::deque<Pending> writes_;  // the first is under way
};

// ---- opening --------------------------------------------------------------------------------------------------------

template <typename Stream>
void WebSocketOver<Stream>::Open(std::function<void(const Status&)> done) {
  opened_ = std::move(done);
  deadline_.expires_after(options_.open_timeout);
  deadline_.async_wait([self = shared_from_this()](const error_code& error) {
    if (error || !self->opened_) return;
    self->late_ = true;
    self->resolver_.cancel();
    self->Abort();
  });
  resolver_.async_resolve(
      url_.host, url_.port,
      [self = shared_from_this()](const error_code& error, const tcp::resolver::results_type& found) {
        if (!error) return self->Connect(found);
        self->Opened(absl::UnavailableError(absl::StrCat("cannot find ", self->Place(), ": ", error.message())));
      });
}

template <typename Stream>
void WebSocketOver<Stream>::Connect(const tcp::resolver::results_type& found) {
  asio::async_connect(socket(), found, [self = shared_from_this()](const error_code& error, const tcp::endpoint&) {
    if (!error) return self->OnConnected();
    self->Opened(absl::UnavailableError(absl::StrCat("nobody answers: ", self->Place(), ": ", error.message())));
  });
}

template <typename Stream>
void WebSocketOver<Stream>::OnConnected() {
  KeepAlive(socket());
  if constexpr (std::is_same_v<Stream, TlsStream>) {
    stream_.next_layer().async_handshake(asio::ssl::stream_base::client,
                                         [self = shared_from_this()](const error_code& error) {
                                           if (error) return self->Opened(self->TlsFailure(error));
                                           self->ShakeHands();
                                         });
  } else {
    ShakeHands();
  }
}

template <typename Stream>
Status WebSocketOver<Stream>::TlsFailure(const error_code& error) {
  if constexpr (std::is_same_v<Stream, TlsStream>) {
    const long verdict = SSL_get_verify_result(stream_.next_layer().native_handle());
    if (verdict != X509_V_OK) {
      return absl::UnauthenticatedError(absl::StrCat("the certificate of ", Place(),
                                                     " is not trusted: ", X509_verify_cert_error_string(verdict),
                                                     "; --streaming-ca names a file with the CA to trust"));
    }
  }
  return absl::UnavailableError(absl::StrCat("TLS with ", Place(), ": ", error.message()));
}

template <typename Stream>
void WebSocketOver<Stream>::ShakeHands() {
  stream_.binary(true);
  stream_.auto_fragment(false);
  stream_.write_buffer_bytes(kWriteBuffer);
  stream_.read_message_max(kLargestMessage);
  stream_.set_option(
      websocket::stream_base::decorator([protocols = options_.protocols](websocket::request_type& request) {
        request.set(http::field::sec_websocket_protocol, protocols);
        request.set(http::field::user_agent, "huskctl");
      }));
  stream_.async_handshake(response_, url_.authority(), url_.target,
                          [self = shared_from_this()](const error_code& error) { self->OnHandshake(error); });
}

template <typename Stream>
void WebSocketOver<Stream>::OnHandshake(const error_code& error) {
  if (error == websocket::error::upgrade_declined) return Opened(Refusal());
  if (error)
    return Opened(absl::UnavailableError(absl::StrCat(Place(), " does not answer as it should: ", error.message())));
  const auto chosen = response_[http::field::sec_websocket_protocol];
  protocol_.assign(chosen.data(), chosen.size());
  if (absl::StrCat(",", options_.protocols, ",").find(absl::StrCat(",", protocol_, ",")) == std::string::npos ||
      protocol_.empty()) {
    return Opened(absl::InternalError(absl::StrCat(Place(), " chose the protocol \"", Printable(protocol_, kMostShown),
                                                   "\", which nobody asked for")));
  }
  PingLater();
  Opened(absl::OkStatus());
}

template <typename Stream>
Status WebSocketOver<Stream>::Refusal() const {
  std::string words = Printable(response_.body(), kMostShown);
  absl::StripAsciiWhitespace(&words);
  return absl::FailedPreconditionError(absl::StrCat(Place(), " refuses (", response_.result_int(), "): ", words));
}

template <typename Stream>
void WebSocketOver<Stream>::Opened(const Status& status) {
  deadline_.cancel();
  if (!status.ok()) Abort();
  const auto done = std::exchange(opened_, nullptr);
  if (late_ && !status.ok()) {
    return done(
        absl::UnavailableError(absl::StrCat(Place(), " did not answer within ", options_.open_timeout.count(), " ms")));
  }
  done(status);
}

// ---- open -----------------------------------------------------------------------------------------------------------

template <typename Stream>
void WebSocketOver<Stream>::Read(std::function<void(StatusOr<std::string>)> done) {
  stream_.async_read(buffer_,
                     [self = shared_from_this(), done = std::move(done)](const error_code& error, std::size_t) {
                       if (error) return done(self->ReadFailure(error));
                       std::string message(static_cast<const char*>(self->buffer_.data().data()), self->buffer_.size());
                       self->buffer_.consume(self->buffer_.size());
                       done(std::move(message));
                     });
}

template <typename Stream>
Status WebSocketOver<Stream>::ReadFailure(const error_code& error) const {
  if (error != websocket::error::closed) {
    return absl::UnavailableError(absl::StrCat("the connection to ", Place(), " is lost: ", error.message()));
  }
  const websocket::close_reason& reason = stream_.reason();
  if (reason.code == websocket::close_code::normal || reason.code == websocket::close_code::none) {
    return absl::OutOfRangeError(absl::StrCat(Place(), " has closed the connection"));
  }
  return absl::UnavailableError(absl::StrCat(Place(), " has closed the connection with code ", reason.code, ": ",
                                             Printable(reason.reason.c_str(), kMostShown)));
}

template <typename Stream>
void WebSocketOver<Stream>::Write(std::string message, std::function<void(const Status&)> done) {
  writes_.push_back({.message = std::move(message), .done = std::move(done)});
  if (writes_.size() == 1) WriteNext();
}

template <typename Stream>
void WebSocketOver<Stream>::WriteNext() {
  stream_.async_write(asio::buffer(writes_.front().message),
                      [self = shared_from_this()](const error_code& error, std::size_t) { self->OnWritten(error); });
}

template <typename Stream>
void WebSocketOver<Stream>::OnWritten(const error_code& error) {
  const Pending written = std::move(writes_.front());
  writes_.pop_front();
  if (!writes_.empty()) WriteNext();  // after an error these fail too, each in its turn
  if (writes_.empty() && closed_ && !goodbye_said_) SayGoodbye();
  if (!written.done) return;
  written.done(error ? absl::UnavailableError(absl::StrCat("write to ", Place(), ": ", error.message()))
                     : absl::OkStatus());
}

template <typename Stream>
void WebSocketOver<Stream>::PingLater() {
  ping_timer_.expires_after(options_.ping_interval);
  ping_timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (error) return;
    // Nobody waits for the pong: while output is not taken nothing is read, and a server that died shows otherwise.
    self->stream_.async_ping({}, [self](const error_code& failed) {
      if (!failed && !self->closing_) self->PingLater();
    });
  });
}

// ---- the end --------------------------------------------------------------------------------------------------------

template <typename Stream>
void WebSocketOver<Stream>::Close(std::function<void()> done) {
  closing_ = true;
  ping_timer_.cancel();
  deadline_.expires_after(options_.close_timeout);
  deadline_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error) self->Abort();
  });
  closed_ = std::move(done);
  // What has been written goes first; Beast would let the goodbye overtake what still waits here.
  if (writes_.empty()) SayGoodbye();
}

template <typename Stream>
void WebSocketOver<Stream>::SayGoodbye() {
  goodbye_said_ = true;
  stream_.async_close(websocket::close_code::normal, [self = shared_from_this()](const error_code&) {
    self->deadline_.cancel();
    self->Abort();
    std::exchange(self->closed_, nullptr)();
  });
}

template <typename Stream>
void WebSocketOver<Stream>::Abort() {
  closing_ = true;
  ping_timer_.cancel();
  error_code ignored;
  socket().close(ignored);
}

// Whom to trust, and for which name.
StatusOr<std::unique_ptr<asio::ssl::context>> MakeTls(const StreamUrl& url, const std::string& certificate_authority) {
  auto tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(tls->native_handle(), TLS1_2_VERSION);
  error_code error;
  if (certificate_authority.empty()) {
    tls->set_default_verify_paths(error);
    if (error) return absl::InternalError(absl::StrCat("the system's certificate authorities: ", error.message()));
  } else {
    tls->load_verify_file(certificate_authority, error);
    if (error) {
      return absl::InvalidArgumentError(
          absl::StrCat("--streaming-ca: cannot use ", certificate_authority, ": ", error.message()));
    }
  }
  tls->set_verify_mode(asio::ssl::verify_peer, error);
  X509_VERIFY_PARAM* parameters = SSL_CTX_get0_param(tls->native_handle());
  if (X509_VERIFY_PARAM_set1_ip_asc(parameters, url.host.c_str()) != 1 &&
      X509_VERIFY_PARAM_set1_host(parameters, url.host.c_str(), url.host.size()) != 1) {
    return absl::InternalError(absl::StrCat("no certificate can be for ", url.host));
  }
  return tls;
}

}  // namespace

StatusOr<std::shared_ptr<WebSocket>> WebSocket::Create(asio::io_context& io, const std::string& url,
                                                       WebSocketOptions options) {
  HUSK_ASSIGN_OR_RETURN(StreamUrl parsed, ParseStreamUrl(url));
  if (!parsed.tls) {
    return std::make_shared<WebSocketOver<PlainStream>>(io, std::move(parsed), std::move(options), nullptr);
  }
  HUSK_ASSIGN_OR_RETURN(std::unique_ptr<asio::ssl::context> tls, MakeTls(parsed, options.certificate_authority));
  return std::make_shared<WebSocketOver<TlsStream>>(io, std::move(parsed), std::move(options), std::move(tls));
}

}  // namespace husk::huskctl
