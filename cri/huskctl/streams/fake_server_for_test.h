// A streaming server whose behaviour the test writes, by Boost.Beast.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_FAKE_SERVER_FOR_TEST_H_
#define HUSK_CRI_HUSKCTL_STREAMS_FAKE_SERVER_FOR_TEST_H_

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <utility>
// Boost 1.74 forgets <utility>.
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"

namespace husk::huskctl {

using PlainTestStream = boost::asio::ip::tcp::socket;
using TlsTestStream = boost::beast::ssl_stream<boost::asio::ip::tcp::socket>;

// Listens at 127.0.0.1. Each connection has a thread, on which the script runs; what the script throws, for instance
// because the client is gone, ends the connection without a goodbye, and so does its return.
template <typename Stream>
class FakeServerOver {
 public:
  using Socket = boost::beast::websocket::stream<Stream>;
  using Script = std::function<void(Socket&)>;

  // With `refusal` every client is refused with these words.
  explicit FakeServerOver(Script script, std::string protocol = "v5.channel.k8s.io",
                          boost::asio::ssl::context* tls = nullptr, std::string refusal = "")
      : script_(std::move(script)),
        protocol_(std::move(protocol)),
        tls_(tls),
        refusal_(std::move(refusal)),
        acceptor_(io_, {boost::asio::ip::address_v4::loopback(), 0}),
        port_(acceptor_.local_endpoint().port()),
        thread_([this] { Accept(); }) {}
  FakeServerOver(const FakeServerOver&) = delete;
  FakeServerOver& operator=(const FakeServerOver&) = delete;
  ~FakeServerOver() { Finish(); }

  // Waits for the scripts. After it the test may look at what they have left.
  void Finish() {
    if (stopping_.exchange(true)) return;
    boost::asio::ip::tcp::socket waker(io_);
    waker.connect({boost::asio::ip::address_v4::loopback(), port_});
    thread_.join();
    for (std::thread& connection : connections_) connection.join();
  }

  [[nodiscard]] std::string url(const std::string& host = "127.0.0.1") const {
    return absl::StrCat(std::is_same_v<Stream, TlsTestStream> ? "https" : "http", "://", host, ":", port_,
                        "/exec/token");
  }

 private:
  void Accept() {
    // Signals are the client's: here they would interrupt what waits. Threads that are made from here inherit it.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    for (;;) {
      auto socket = std::make_shared<boost::asio::ip::tcp::socket>(acceptor_.accept());
      if (stopping_) return;
      connections_.emplace_back([this, socket] {
        try {
          Serve(std::move(*socket));
        } catch (const boost::system::system_error&) {  // NOLINT(bugprone-empty-catch): see above
        }
      });
    }
  }
  void Serve(boost::asio::ip::tcp::socket socket) {
    if constexpr (std::is_same_v<Stream, TlsTestStream>) {
      Socket stream(std::move(socket), *tls_);
      stream.next_layer().handshake(boost::asio::ssl::stream_base::server);
      Talk(stream);
    } else {
      Socket stream(std::move(socket));
      Talk(stream);
    }
  }
  void Talk(Socket& stream) {
    namespace http = boost::beast::http;
    boost::beast::flat_buffer buffer;
    http::request<http::string_body> request;
    http::read(stream.next_layer(), buffer, request);
    if (!refusal_.empty()) {
      http::response<http::string_body> response(http::status::not_found, 11);
      response.body() = refusal_;
      response.prepare_payload();
      http::write(stream.next_layer(), response);
      return;
    }
    stream.set_option(
        boost::beast::websocket::stream_base::decorator([this](boost::beast::websocket::response_type& response) {
          if (!protocol_.empty()) response.set(http::field::sec_websocket_protocol, protocol_);
        }));
    stream.binary(true);
    stream.accept(request);
    script_(stream);
  }

  const Script script_;
  const std::string protocol_;
  boost::asio::ssl::context* const tls_;
  const std::string refusal_;
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  const std::uint16_t port_;
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> connections_;  // of thread_
  std::thread thread_;                    // last: it uses the rest
};

using FakeServer = FakeServerOver<PlainTestStream>;

template <typename Stream>
void SendTo(boost::beast::websocket::stream<Stream>& socket, char channel, const std::string& bytes) {
  socket.write(boost::asio::buffer(std::string(1, channel) + bytes));
}

template <typename Stream>
std::string ReceiveFrom(boost::beast::websocket::stream<Stream>& socket) {
  boost::beast::flat_buffer buffer;
  socket.read(buffer);
  return boost::beast::buffers_to_string(buffer.data());
}

// A self-signed certificate and its key in a context, for the name "node.example" and, if asked for, for 127.0.0.1; the
// certificate also into a file.
inline void UseNewCertificate(boost::asio::ssl::context& tls, const std::string& file, bool for_loopback) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"),
                                                                EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), key.get());
  const std::string names = for_loopback ? "DNS:node.example,IP:127.0.0.1" : "DNS:node.example";
  const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> extension(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str()), X509_EXTENSION_free);
  X509_add_ext(certificate.get(), extension.get(), -1);
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  SSL_CTX_use_certificate(tls.native_handle(), certificate.get());
  SSL_CTX_use_PrivateKey(tls.native_handle(), key.get());
  const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new_file(file.c_str(), "w"), BIO_free);
  PEM_write_bio_X509(out.get(), certificate.get());
}

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_FAKE_SERVER_FOR_TEST_H_
