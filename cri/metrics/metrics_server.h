// The HTTP endpoint that Prometheus scrapes.
#ifndef HUSK_CRI_METRICS_METRICS_SERVER_H_
#define HUSK_CRI_METRICS_METRICS_SERVER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "agent/common/status.h"

namespace husk::cri {

struct MetricsServerOptions {
  // "HOST:PORT", HOST an IPv4 address or an IPv6 one in brackets; port 0: any.
  std::string address;
  // From the accept to the last byte of the answer; then the connection is closed.
  std::chrono::milliseconds time_limit = std::chrono::seconds(10);
  // One more closes the oldest: idle connections cannot keep a scraper out.
  std::size_t connection_limit = 32;
  // After which a failure to listen is followed by the next attempt; it doubles each time, up to half a minute.
  std::chrono::milliseconds first_retry = std::chrono::seconds(1);
};

// GET and HEAD of /metrics; one request a connection, of at most 8 KiB and without a body. One thread for all of it, on
// which `text` is called too. Not thread safe.
class MetricsServer {
 public:
  // INVALID_ARGUMENT, which begins with "metrics.address", for an address that is none. One that cannot be listened on,
  // since somebody else does, say, is no failure: that is logged, and tried again until it works.
  static StatusOr<std::unique_ptr<MetricsServer>> Start(const MetricsServerOptions& options,
                                                        std::function<std::string()> text);

  // Closes all connections and returns when `text` will not be called any more.
  virtual ~MetricsServer() = default;

  // Where it listens really, as in the options; empty while it cannot. Thread safe.
  [[nodiscard]] virtual std::string address() const = 0;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_METRICS_METRICS_SERVER_H_
