// Child processes without blocking: the agent starts crun, goes on with its loop, and is called back.
#ifndef HUSK_AGENT_GUEST_CHILDREN_H_
#define HUSK_AGENT_GUEST_CHILDREN_H_

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "agent/common/status.h"
#include "agent/guest/event_loop.h"

namespace husk::agent {

// As a shell shows a wait status: the exit code, or 128 + the signal.
int ExitCode(int wait_status);

// Starts and reaps all children of the process, orphans of containers included. Not thread safe.
class Children {
 public:
  using OnExit = std::function<void(int exit_code)>;

  // While one lives, exits of unknown children are remembered, as Await() may ask for them: crun tells the pid of the
  // process that it leaves behind only when that may have ended already.
  using Memory = std::shared_ptr<void>;

  // Takes the loop's child callback over.
  explicit Children(EventLoop& loop);

  [[nodiscard]] Memory RememberExits();

  struct Command {
    std::vector<std::string> argv;  // argv[0] is a path
    int standard_input = -1;        // -1: /dev/null; not closed here
    int standard_output = -1;
    int standard_error = -1;
    std::string directory;  // where it runs; empty: here
  };
  // `on_exit` is called once, never from within Start. A failure to start is returned.
  StatusOr<pid_t> Start(const Command& command, OnExit on_exit);

  // Calls back when `pid`, a child by adoption, ends; at once if it has ended while exits were remembered.
  void Await(pid_t pid, OnExit on_exit);

 private:
  void Exited(pid_t pid, int wait_status);

  // More exits than this are forgotten: a container can make orphans by the thousand.
  static constexpr std::size_t kMaximumRemembered = 4096;

  std::unordered_map<pid_t, OnExit> awaited_;
  std::unordered_map<pid_t, int> remembered_;
  Memory memory_ = std::make_shared<int>();
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CHILDREN_H_
