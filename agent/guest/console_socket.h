// Where crun hands over the master's end of a container's terminal.
#ifndef HUSK_AGENT_GUEST_CONSOLE_SOCKET_H_
#define HUSK_AGENT_GUEST_CONSOLE_SOCKET_H_

#include <string>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::agent {

// Not thread safe. The socket's name goes when this does.
class ConsoleSocket {
 public:
  // At most 107 bytes of path.
  static StatusOr<ConsoleSocket> Listen(const std::string& path);
  ConsoleSocket(ConsoleSocket&&) = default;
  ConsoleSocket& operator=(ConsoleSocket&&) = delete;
  ~ConsoleSocket();

  // The descriptor that was sent; never blocks. NOT_FOUND if none was.
  StatusOr<UniqueFd> Receive();

 private:
  ConsoleSocket(std::string path, UniqueFd listener) : path_(std::move(path)), listener_(std::move(listener)) {}

  std::string path_;
  UniqueFd listener_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CONSOLE_SOCKET_H_
