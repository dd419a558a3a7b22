// A server's side of one TCP connection, with TLS or without.
#ifndef HUSK_IMAGES_TESTING_CONNECTION_H_
#define HUSK_IMAGES_TESTING_CONNECTION_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "agent/common/unique_fd.h"
#include "images/testing/certificates.h"

namespace husk::images::testing {

struct FakeTls {
  TestCertificate server;
  std::string client_authority;  // PEM; not empty: a client certificate that it has issued is required
};

// Blocking, for one thread. Any wait ends when `stop` becomes readable.
class Connection {
 public:
  // Without TLS if `tls` is empty.
  Connection(UniqueFd socket, int stop, const std::optional<FakeTls>& tls);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  [[nodiscard]] bool ok() const { return open_; }
  // The common name of the client's certificate, if it has shown one.
  [[nodiscard]] std::string client_name() const;
  // Empty when the peer is gone or the wait was stopped.
  std::string Receive();
  // False when the peer is gone or the wait was stopped.
  bool Send(std::string_view bytes);
  // True if the wait was not stopped.
  [[nodiscard]] bool Sleep(int milliseconds) const;
  // No more is sent; the peer sees an end.
  void EndSending();
  // The peer sees a reset.
  void Reset();

 private:
  struct Tls;

  [[nodiscard]] bool WaitFor(short events) const;

  UniqueFd socket_;
  const int stop_;
  bool open_ = true;
  std::unique_ptr<Tls> tls_;
};

}  // namespace husk::images::testing

#endif  // HUSK_IMAGES_TESTING_CONNECTION_H_
