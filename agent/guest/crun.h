// Drives crun, the OCI runtime, without waiting for it.
#ifndef HUSK_AGENT_GUEST_CRUN_H_
#define HUSK_AGENT_GUEST_CRUN_H_

#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "agent/guest/children.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/process_io.h"

namespace husk::agent {

// Not thread safe.
class Crun {
 public:
  // `program`: its path. `state`: an existing directory for its state and for what it tells us.
  Crun(EventLoop& loop, Children& children, std::string program, std::string state);

  struct Started {
    pid_t pid = -1;     // a child of this process now: await it in the callback, not later
    UniqueFd terminal;  // the master's end, if one was asked for
  };
  // Started, or FAILED_PRECONDITION with crun's words.
  using OnStarted = std::function<void(StatusOr<Started>)>;

  // `crun run`: creates and starts the container of `bundle`. `ends` are its stdio unless it has a terminal.
  void Run(const std::string& id, const std::string& bundle, bool terminal, ProcessIo::ChildEnds ends,
           OnStarted on_started);
  // `crun exec` of a process.json in a running container. The text is kept in a file until it has started. `cgroup`: an
  // existing one below the container's.
  void Exec(const std::string& id, const std::string& cgroup, std::string_view process_json, bool terminal,
            ProcessIo::ChildEnds ends, OnStarted on_started);
  // `crun delete --force`. OK if crun does not know it.
  void Delete(const std::string& id, const std::function<void(Status)>& done);

 private:
  struct Launch;
  void Start(const std::shared_ptr<Launch>& launch);
  void Ended(const std::shared_ptr<Launch>& launch, int exit_code);
  [[nodiscard]] std::shared_ptr<Launch> NewLaunch(bool terminal, ProcessIo::ChildEnds ends, OnStarted on_started);

  EventLoop& loop_;
  Children& children_;
  const std::string program_;
  const std::string state_;
  std::uint64_t launches_ = 0;  // numbers their files
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CRUN_H_
