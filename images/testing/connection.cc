#include "images/testing/connection.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

namespace husk::images::testing {
namespace {

constexpr std::size_t kPiece = 65536;

struct Deleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
using Bio = std::unique_ptr<BIO, Deleter>;
using Certificate = std::unique_ptr<X509, Deleter>;
using Key = std::unique_ptr<EVP_PKEY, Deleter>;

Certificate ParseCertificate(const std::string& pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  return Certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
}

Key ParseKey(const std::string& pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  return Key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
}

}  // namespace

struct Connection::Tls {
  std::unique_ptr<SSL_CTX, Deleter> context{SSL_CTX_new(TLS_server_method())};
  std::unique_ptr<SSL, Deleter> ssl;

  Tls(const FakeTls& settings, int socket) {
    SSL_CTX_use_certificate(context.get(), ParseCertificate(settings.server.certificate).get());
    SSL_CTX_use_PrivateKey(context.get(), ParseKey(settings.server.key).get());
    if (!settings.client_authority.empty()) {
      const Certificate authority = ParseCertificate(settings.client_authority);
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), authority.get());
      SSL_CTX_add_client_CA(context.get(), authority.get());
      SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    }
    ssl.reset(SSL_new(context.get()));
    SSL_set_fd(ssl.get(), socket);
  }
};

Connection::Connection(UniqueFd socket, int stop, const std::optional<FakeTls>& tls)
    : socket_(std::move(socket)), stop_(stop) {
  fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
  if (!tls) return;
  // OpenSSL knows no MSG_NOSIGNAL.
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  tls_ = std::make_unique<Tls>(*tls, socket_.get());
  int accepted = 0;
  while ((accepted = SSL_accept(tls_->ssl.get())) <= 0) {
    const int error = SSL_get_error(tls_->ssl.get(), accepted);
    const bool again = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
    if (again && WaitFor(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT)) continue;
    open_ = false;
    return;
  }
}

Connection::~Connection() = default;

bool Connection::WaitFor(short events) const {
  pollfd fds[] = {{socket_.get(), events, 0}, {stop_, POLLIN, 0}};
  return poll(fds, 2, -1) > 0 && fds[1].revents == 0;
}

std::string Connection::client_name() const {
  if (tls_ == nullptr) return "";
  const Certificate certificate(SSL_get1_peer_certificate(tls_->ssl.get()));
  std::string name(256, '\0');
  if (certificate == nullptr) return "";
  const int length = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()), NID_commonName, name.data(),
                                               static_cast<int>(name.size()));
  name.resize(static_cast<std::size_t>(std::max(length, 0)));
  return name;
}

std::string Connection::Receive() {
  std::string bytes(kPiece, '\0');
  while (open_) {
    bool again = false;
    long count = 0;
    short events = POLLIN;
    if (tls_ != nullptr) {
      count = SSL_read(tls_->ssl.get(), bytes.data(), static_cast<int>(bytes.size()));
      const int error = SSL_get_error(tls_->ssl.get(), static_cast<int>(count));
      again = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
      if (error == SSL_ERROR_WANT_WRITE) events = POLLOUT;
    } else {
      count = recv(socket_.get(), bytes.data(), bytes.size(), 0);
      again = count < 0 && (errno == EAGAIN || errno == EINTR);
    }
    if (count > 0) {
      bytes.resize(static_cast<std::size_t>(count));
      return bytes;
    }
    if (!again || !WaitFor(events)) open_ = false;
  }
  return "";
}

bool Connection::Send(std::string_view bytes) {
  while (open_ && !bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kPiece);
    bool again = false;
    long count = 0;
    if (tls_ != nullptr) {
      count = SSL_write(tls_->ssl.get(), piece.data(), static_cast<int>(piece.size()));
      const int error = SSL_get_error(tls_->ssl.get(), static_cast<int>(count));
      again = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
    } else {
      count = send(socket_.get(), piece.data(), piece.size(), MSG_NOSIGNAL);
      again = count < 0 && (errno == EAGAIN || errno == EINTR);
    }
    if (count > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(count));
    } else if (!again || !WaitFor(POLLOUT)) {
      open_ = false;
    }
  }
  return open_;
}

bool Connection::Sleep(int milliseconds) const {
  pollfd stop{stop_, POLLIN, 0};
  return poll(&stop, 1, milliseconds) == 0;
}

void Connection::EndSending() {
  if (tls_ != nullptr && open_) SSL_shutdown(tls_->ssl.get());
  shutdown(socket_.get(), SHUT_WR);
}

void Connection::Reset() {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  open_ = false;
  socket_.Reset();
}

}  // namespace husk::images::testing
