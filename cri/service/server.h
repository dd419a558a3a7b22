// The CRI on a unix socket.
#ifndef HUSK_CRI_SERVICE_SERVER_H_
#define HUSK_CRI_SERVICE_SERVER_H_

#include <chrono>
#include <memory>
#include <string>

#include "agent/common/status.h"
#include "cri/lanes.h"
#include "cri/service/handlers.h"
#include "sandbox/event_hub.h"

namespace husk::cri {

// Owns the gRPC server and the socket's name. Not thread safe: started and shut down by one thread.
class Server {
 public:
  // Listens on `socket_path` (mode 0660, the process's own user and group), whose directory must exist. A socket that
  // nobody answers on is replaced; one that somebody answers on, or a file that is no socket, is
  // FAILED_PRECONDITION. The path appears only when calls are served. Those borrowed must outlive the server.
  static StatusOr<std::unique_ptr<Server>> Start(const std::string& socket_path, Handlers* handlers, Lanes* lanes,
                                                 sandbox::EventHub* events);

  virtual ~Server() = default;

  // Ends the streams of events, takes no new calls, waits for those in flight for `grace`, then cancels them; returns
  // when all have ended. The socket's name is gone first.
  virtual void Shutdown(std::chrono::milliseconds grace) = 0;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_SERVER_H_
