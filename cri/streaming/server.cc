#include "cri/streaming/server.h"

#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <spdlog/spdlog.h>

#include <utility>
// Boost 1.74 forgets <utility>.
#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <list>
#include <optional>
#include <system_error>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "agent/common/mutex.h"
#include "cri/streaming/connection.h"
#include "cri/streaming/tokens.h"
#include "cri/streaming/upgrade.h"

namespace husk::cri {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAcceptPause = std::chrono::milliseconds(200);

StatusOr<tcp::endpoint> ParseEndpoint(const std::string& text) {
  const auto bad = [&text] {
    return absl::InvalidArgumentError(absl::StrCat("address: expected IP:PORT or [IP]:PORT, not \"", text, "\""));
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return bad();
  std::string host = text.substr(0, colon);
  std::uint32_t port = 0;
  if (!absl::SimpleAtoi(text.substr(colon + 1), &port) || port > 65535) return bad();
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  error_code error;
  const auto address = boost::asio::ip::make_address(host, error);
  if (error || address.is_v6() != bracketed) return bad();
  return tcp::endpoint(address, static_cast<std::uint16_t>(port));
}

Status UseCertificate(const StreamingOptions& options, boost::asio::ssl::context& tls) {
  error_code error;
  tls.use_certificate_chain_file(options.certificate_file, error);
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat("certificate: cannot use ", options.certificate_file, ": ", error.message()));
  }
  tls.use_private_key_file(options.key_file, boost::asio::ssl::context::pem, error);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat("key: cannot use ", options.key_file, ": ", error.message()));
  }
  if (SSL_CTX_check_private_key(tls.native_handle()) != 1) {
    return absl::InvalidArgumentError("key: does not belong to the certificate");
  }
  SSL_CTX_set_min_proto_version(tls.native_handle(), TLS1_2_VERSION);
  return absl::OkStatus();
}

void KeepAlive(tcp::socket& socket) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(boost::asio::socket_base::keep_alive(true), ignored);
  // A client whose host has died is noticed after about a minute.
  for (const auto& [option, value] : {std::pair(TCP_KEEPIDLE, 30), {TCP_KEEPINTVL, 10}, {TCP_KEEPCNT, 3}}) {
    setsockopt(socket.native_handle(), IPPROTO_TCP, option, &value, sizeof(value));
  }
}

class StreamingServerImpl final : public StreamingServer {
 public:
  StreamingServerImpl(const StreamingOptions& options, StreamOperation operation, ForwardOperation forward)
      : options_(options),
        operation_(std::move(operation)),
        forward_(std::move(forward)),
        acceptor_(io_),
        pause_(io_) {}
  ~StreamingServerImpl() override { Stop(); }

  Status Listen();
  StatusOr<std::string> UrlFor(StreamRequest request) override;
  [[nodiscard]] std::string address() const override;
  void Stop() override;

 private:
  void Accept();
  void Take(tcp::socket socket);
  Status Run(const std::shared_ptr<Connection>& connection, StreamRequest request);
  void StartSession(const std::shared_ptr<Connection>& connection, StreamRequest request);
  void RunSession(const std::shared_ptr<Connection>& connection, const StreamRequest& request);

  const StreamingOptions options_;
  const StreamOperation operation_;
  const ForwardOperation forward_;
  TokenStore tokens_;
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_ = boost::asio::make_work_guard(io_);
  std::optional<boost::asio::ssl::context> tls_;
  tcp::acceptor acceptor_;
  tcp::endpoint endpoint_;
  boost::asio::steady_timer pause_;
  std::shared_ptr<const ConnectionParts> parts_;
  std::list<std::weak_ptr<Connection>> connections_;  // on the I/O thread

  Mutex mutex_;
  ConditionVariable changed_;
  std::uint32_t sessions_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread io_thread_;  // last: it uses the rest
};

Status StreamingServerImpl::Listen() {
  HUSK_ASSIGN_OR_RETURN(const tcp::endpoint wanted, ParseEndpoint(options_.address));
  if (options_.certificate_file.empty() != options_.key_file.empty()) {
    return absl::InvalidArgumentError("certificate: must be given together with key, or neither");
  }
  if (!options_.certificate_file.empty()) {
    tls_.emplace(boost::asio::ssl::context::tls_server);
    HUSK_RETURN_IF_ERROR(UseCertificate(options_, *tls_));
  }
  error_code error;
  acceptor_.open(wanted.protocol(), error);
  if (!error) acceptor_.set_option(boost::asio::socket_base::reuse_address(true), error);
  if (!error) acceptor_.bind(wanted, error);
  if (!error) acceptor_.listen(boost::asio::socket_base::max_listen_connections, error);
  if (!error) endpoint_ = acceptor_.local_endpoint(error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("address: listen at ", options_.address));
  parts_ = std::make_shared<const ConnectionParts>(
      ConnectionParts{.take_token = [this](const std::string& token) { return tokens_.Take(token); },
                      .run = [this](const std::shared_ptr<Connection>& connection,
                                    StreamRequest request) { return Run(connection, std::move(request)); }});
  Accept();
  io_thread_ = std::thread([this] { io_.run(); });
  return absl::OkStatus();
}

std::string StreamingServerImpl::address() const {
  tcp::endpoint shown = endpoint_;
  // Clients are on this host where nothing else is said.
  if (shown.address().is_unspecified()) {
    shown.address(shown.address().is_v4() ? boost::asio::ip::address(boost::asio::ip::address_v4::loopback())
                                          : boost::asio::ip::address(boost::asio::ip::address_v6::loopback()));
  }
  const std::string host = shown.address().to_string();
  return absl::StrCat(shown.address().is_v6() ? absl::StrCat("[", host, "]") : host, ":", shown.port());
}

StatusOr<std::string> StreamingServerImpl::UrlFor(StreamRequest request) {
  const std::string_view prefix = PathPrefix(request.kind);
  HUSK_ASSIGN_OR_RETURN(const std::string token, tokens_.Add(std::move(request)));
  return absl::StrCat(tls_ ? "https" : "http", "://", address(), std::string(prefix), token);
}

void StreamingServerImpl::Accept() {
  acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
    if (!acceptor_.is_open()) return;
    if (!error) {
      Take(std::move(socket));
      return Accept();
    }
    // Out of descriptors, most likely.
    spdlog::warn("streaming: accept: {}", error.message());
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](const error_code& cancelled) {
      if (!cancelled) Accept();
    });
  });
}

void StreamingServerImpl::Take(tcp::socket socket) {
  connections_.remove_if([](const std::weak_ptr<Connection>& connection) { return connection.expired(); });
  if (connections_.size() >= options_.maximum_connections) return;
  KeepAlive(socket);
  auto stream = tls_ ? NewTlsStream(std::move(socket), *tls_) : NewPlainStream(std::move(socket));
  const StreamTimeouts timeouts{.head = options_.head_timeout, .streams = options_.streams_timeout};
  auto connection = std::make_shared<Connection>(io_, std::move(stream), parts_, timeouts);
  connections_.push_back(connection);
  connection->Start();
}

Status StreamingServerImpl::Run(const std::shared_ptr<Connection>& connection, StreamRequest request) {
  {
    const MutexLock lock(mutex_);
    if (stopping_) return absl::UnavailableError("huskd is being stopped");
    if (sessions_ >= options_.maximum_sessions) {
      return absl::ResourceExhaustedError(
          absl::StrCat(options_.maximum_sessions, " streaming sessions are open; at most that many may be"));
    }
    ++sessions_;
  }
  try {
    StartSession(connection, std::move(request));
  } catch (const std::system_error& error) {
    const MutexLock lock(mutex_);
    --sessions_;
    return absl::ResourceExhaustedError(absl::StrCat("no thread for a streaming session: ", error.what()));
  }
  return absl::OkStatus();
}

void StreamingServerImpl::StartSession(const std::shared_ptr<Connection>& connection, StreamRequest request) {
  std::thread([this, kept = connection, request = std::move(request)]() mutable {
    RunSession(kept, request);
    kept.reset();  // before Stop may return
    const MutexLock lock(mutex_);
    --sessions_;
    changed_.NotifyAll();
  }).detach();
}

void StreamingServerImpl::RunSession(const std::shared_ptr<Connection>& connection, const StreamRequest& request) {
  const Context context = Context::Background("streaming").WithStopToken(connection->gone());
  StatusOr<std::int32_t> outcome = 0;
  if (request.kind == StreamRequest::Kind::kPortForward) {
    const Status forwarded = forward_(context, request, connection->exchange());
    if (!forwarded.ok()) outcome = forwarded;
  } else {
    outcome = operation_(context, request, connection->session());
  }
  if (!outcome.ok() && context.Check().ok()) {
    spdlog::info("streaming: {} {}", connection->Subject(),
                 std::string_view(outcome.status().message().data(), outcome.status().message().size()));
  }
  connection->Finish(std::move(outcome));
}

void StreamingServerImpl::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  if (!io_thread_.joinable()) return;
  boost::asio::post(io_, [this] {
    error_code ignored;
    acceptor_.close(ignored);
    pause_.cancel();
    for (const auto& weak : connections_) {
      if (const auto connection = weak.lock()) connection->Cut();
    }
  });
  {
    const MutexLock lock(mutex_);
    while (sessions_ > 0) changed_.Wait(mutex_);
  }
  work_.reset();
  // What is left are handlers of closed connections.
  io_thread_.join();
}

}  // namespace

StatusOr<std::unique_ptr<StreamingServer>> StreamingServer::Start(const StreamingOptions& options,
                                                                  StreamOperation operation, ForwardOperation forward) {
  auto server = std::make_unique<StreamingServerImpl>(options, std::move(operation), std::move(forward));
  HUSK_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace husk::cri
