#include "cri/metrics/metrics_server.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <csignal>
#include <list>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/mutex.h"
#include "cri/config/network_address.h"

namespace husk::cri {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

constexpr std::uint32_t kLargestRequest = 8192;
constexpr char kTextFormat[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr auto kAcceptPause = std::chrono::milliseconds(500);
constexpr auto kLongestRetry = std::chrono::seconds(30);

using Response = http::response<http::string_body>;

Response Answer(const http::request<http::empty_body>& request, const std::function<std::string()>& text) {
  Response response{http::status::ok, 11};
  response.keep_alive(false);
  response.set(http::field::server, "huskd");
  response.set(http::field::content_type, "text/plain; charset=utf-8");
  const beast::string_view target = request.target();
  const bool found = target.substr(0, target.find('?')) == "/metrics";
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    response.result(http::status::method_not_allowed);
    response.set(http::field::allow, "GET, HEAD");
    response.body() = "only GET and HEAD\n";
  } else if (!found) {
    response.result(http::status::not_found);
    response.body() = "only /metrics is here\n";
  } else {
    response.set(http::field::content_type, kTextFormat);
    response.body() = text();
  }
  response.prepare_payload();
  // The length is that of the body which GET would get.
  if (request.method() == http::verb::head) response.body().clear();
  return response;
}

// One connection with one request. Everything happens on the server's thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, const std::function<std::string()>* text, std::function<void(Connection*)> ended)
      : stream_(std::move(socket)), text_(text), ended_(std::move(ended)) {
    parser_.header_limit(kLargestRequest);
    parser_.body_limit(std::uint64_t{0});
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() = default;

  void Run(std::chrono::milliseconds time_limit) {
    // Once, for reading and writing together: bytes that trickle in win no time.
    stream_.expires_after(time_limit);
    http::async_read(
        stream_, buffer_, parser_,
        [self = shared_from_this()](const beast::error_code& error, std::size_t) { self->HasRead(error); });
  }

  void Close() {
    beast::error_code ignored;
    stream_.socket().close(ignored);
  }

 private:
  void HasRead(const beast::error_code& error) {
    if (error == http::error::header_limit || error == http::error::body_limit ||
        error == http::error::unexpected_body) {
      return Refuse(http::status::payload_too_large, "a request here has at most 8 KiB, and no body\n");
    }
    if (error.category() == make_error_code(http::error::bad_method).category() &&
        error != http::error::end_of_stream && error != http::error::partial_message) {
      return Refuse(http::status::bad_request, "that is no HTTP request\n");
    }
    if (error) return ended_(this);
    response_ = Answer(parser_.get(), *text_);
    Write(parser_.get().method() == http::verb::head);
  }

  void Refuse(http::status status, const char* why) {
    response_ = Response{status, 11};
    response_.keep_alive(false);
    response_.body() = why;
    response_.prepare_payload();
    Write(/*header_only=*/false);
  }

  void Write(bool header_only) {
    serializer_.emplace(response_);
    const auto done = [self = shared_from_this()](const beast::error_code&, std::size_t) {
      beast::error_code ignored;
      self->stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
      self->ended_(self.get());
    };
    if (header_only) {
      http::async_write_header(stream_, *serializer_, done);
    } else {
      http::async_write(stream_, *serializer_, done);
    }
  }

  beast::tcp_stream stream_;
  const std::function<std::string()>* const text_;
  const std::function<void(Connection*)> ended_;
  beast::flat_buffer buffer_{2 * kLargestRequest};
  http::request_parser<http::empty_body> parser_;
  Response response_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
};

class BeastServer final : public MetricsServer {
 public:
  BeastServer(MetricsServerOptions options, std::function<std::string()> text)
      : options_(std::move(options)), text_(std::move(text)), retry_(options_.first_retry) {}

  ~BeastServer() override {
    asio::post(io_, [this] { io_.stop(); });
    if (thread_.joinable()) thread_.join();
    connections_.clear();
  }

  Status Start() {
    const auto parsed = ParseNetworkAddress(options_.address);
    beast::error_code error;
    if (parsed.ok()) endpoint_ = tcp::endpoint(asio::ip::make_address(parsed->host, error), parsed->port);
    if (!parsed.ok() || error) {
      const std::string why(parsed.ok() ? error.message() : std::string(parsed.status().message()));
      return absl::InvalidArgumentError(absl::StrCat("metrics.address: ", why));
    }
    // Here, so that it listens when this returns, if it can.
    Listen();
    // The process's signals are for its main thread.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    thread_ = std::thread([this] { io_.run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(thread_.native_handle(), "metrics");
    return absl::OkStatus();
  }

  [[nodiscard]] std::string address() const override {
    const MutexLock lock(mutex_);
    return address_;
  }

 private:
  void Listen() {
    beast::error_code error;
    acceptor_.open(endpoint_.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint_, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) return ListenLater(error);
    const tcp::endpoint endpoint = acceptor_.local_endpoint(error);
    const std::string host = endpoint.address().to_string();
    const std::string address = endpoint.address().is_v6() ? absl::StrCat("[", host, "]:", endpoint.port())
                                                           : absl::StrCat(host, ":", endpoint.port());
    {
      const MutexLock lock(mutex_);
      address_ = address;
    }
    spdlog::info("metrics address={}", address);
    Accept();
  }

  // Pods do not depend on somebody's figures.
  void ListenLater(const beast::error_code& why) {
    beast::error_code ignored;
    acceptor_.close(ignored);
    spdlog::warn("metrics.address: cannot listen on {}: {}; trying again in {} ms", options_.address, why.message(),
                 retry_.count());
    pause_.expires_after(retry_);
    retry_ = std::min<std::chrono::milliseconds>(2 * retry_, kLongestRetry);
    pause_.async_wait([this](const beast::error_code& error) {
      if (!error) Listen();
    });
  }

  void Accept() {
    acceptor_.async_accept([this](const beast::error_code& error, tcp::socket socket) {
      if (error) return AcceptLater(error);
      Take(std::move(socket));
      Accept();
    });
  }

  // Without descriptors left, say: at once it would only fail again.
  void AcceptLater(const beast::error_code& why) {
    spdlog::warn("metrics: accept a connection: {}", why.message());
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](const beast::error_code& error) {
      if (!error) Accept();
    });
  }

  void Take(tcp::socket socket) {
    if (connections_.size() >= options_.connection_limit) {
      connections_.front()->Close();
      connections_.pop_front();
    }
    auto connection =
        std::make_shared<Connection>(std::move(socket), &text_, [this](const Connection* ended) { Forget(ended); });
    connections_.push_back(connection);
    connection->Run(options_.time_limit);
  }

  void Forget(const Connection* ended) {
    connections_.remove_if([&](const auto& connection) { return connection.get() == ended; });
  }

  const MetricsServerOptions options_;
  const std::function<std::string()> text_;
  mutable Mutex mutex_;
  std::string address_ ABSL_GUARDED_BY(mutex_);
  // What follows is of the server's thread alone, once that runs.
  std::chrono::milliseconds retry_;
  tcp::endpoint endpoint_;
  asio::io_context io_{1};
  tcp::acceptor acceptor_{io_};
  asio::steady_timer pause_{io_};
  std::list<std::shared_ptr<Connection>> connections_;  // oldest first
  std::thread thread_;
};

}  // namespace

StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const MetricsServerOptions& options,
                                                              std::function<std::string()> text) {
  auto server = std::make_unique<BeastServer>(options, std::move(text));
  HUSK_RETURN_IF_ERROR(server->Start());
  return server;
}

}  // namespace husk::cri
