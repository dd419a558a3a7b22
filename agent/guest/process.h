// What the agent knows of one process that it runs for huskd: a container's first, or an exec's.
#ifndef HUSK_AGENT_GUEST_PROCESS_H_
#define HUSK_AGENT_GUEST_PROCESS_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/common/status.h"
#include "agent/guest/process_io.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// Calls that wait for the same event; each is answered once.
class Waiters {
 public:
  using Callback = std::function<void(const Status&)>;
  void Add(Callback callback) { callbacks_.push_back(std::move(callback)); }
  void Answer(const Status& status) {
    for (const auto& callback : std::exchange(callbacks_, {})) callback(status);
  }

 private:
  std::vector<Callback> callbacks_;
};

struct Process {
  v1::ProcessStatus status;
  ProcessIo io;
  bool starting = false;  // crun runs
  Waiters start_waiters;
  Status start_status;  // of the start that ended

  Process(EventLoop& loop, const std::function<void()>& changed) : io(loop, changed) {}
  [[nodiscard]] bool running() const { return status.state() == v1::RUNNING; }
  [[nodiscard]] bool exited() const { return status.state() == v1::EXITED; }
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_PROCESS_H_
