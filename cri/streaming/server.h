// The HTTP server that clients of exec, attach and port-forward come to.
#ifndef HUSK_CRI_STREAMING_SERVER_H_
#define HUSK_CRI_STREAMING_SERVER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "cri/streaming/stream_request.h"
#include "sandbox/client_streams.h"
#include "sandbox/port_exchange.h"

namespace husk::cri {

struct StreamingOptions {
  std::string address = "127.0.0.1:0";  // IP:PORT, [IP]:PORT; port 0: any free one
  std::string certificate_file;         // PEM; with it the server speaks TLS
  std::string key_file;
  std::uint32_t maximum_connections = 2000;  // more are closed at once
  std::uint32_t maximum_sessions = 500;      // commands at the same time; each has up to three threads
  std::chrono::milliseconds head_timeout = std::chrono::seconds(10);
  std::chrono::milliseconds streams_timeout = std::chrono::seconds(30);
};

// What the streams are joined to. Called on a session's own thread, and may take as long as it likes, until the context
// ends because the client is gone or the server stops. Returns the command's exit code.
using StreamOperation = std::function<StatusOr<std::int32_t>(const Context& context, const StreamRequest& request,
                                                             sandbox::ClientStreams& streams)>;

// The same for connections to a pod's ports.
using ForwardOperation =
    std::function<Status(const Context& context, const StreamRequest& request, sandbox::PortExchange& exchange)>;

// One I/O thread for all connections, and threads for what their commands wait for. Thread safe, but for Stop and the
// destructor.
class StreamingServer {
 public:
  virtual ~StreamingServer() = default;

  // Listens. INVALID_ARGUMENT, beginning with the option's name, for a bad address, certificate or key; else what the
  // system says.
  static StatusOr<std::unique_ptr<StreamingServer>> Start(const StreamingOptions& options, StreamOperation operation,
                                                          ForwardOperation forward);

  // Where a client finds what `request` describes: once, within a minute. RESOURCE_EXHAUSTED.
  virtual StatusOr<std::string> UrlFor(StreamRequest request) = 0;
  // Where it listens: "127.0.0.1:41234".
  [[nodiscard]] virtual std::string address() const = 0;
  // Cuts all connections off, and returns when their commands have ended.
  virtual void Stop() = 0;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_SERVER_H_
