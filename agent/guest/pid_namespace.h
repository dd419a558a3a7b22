// PID namespaces that several containers live in: the pod's own, and that of a container which another one looks into.
#ifndef HUSK_AGENT_GUEST_PID_NAMESPACE_H_
#define HUSK_AGENT_GUEST_PID_NAMESPACE_H_

#include <sys/types.h>

#include <optional>
#include <string>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "agent/guest/children.h"

namespace husk::agent {

// One that is held: it can be joined as long as this exists, whoever has the pid by then. Joining one whose first
// process has ended fails.
class PidNamespace {
 public:
  static StatusOr<PidNamespace> Of(pid_t pid);
  // What crun, a child of this process, can open.
  [[nodiscard]] std::string path() const;

 private:
  explicit PidNamespace(UniqueFd file) : file_(std::move(file)) {}
  UniqueFd file_;
};

// The pod's own. Its first process adopts and reaps what containers leave behind, and does nothing else; it has no
// capabilities and an empty root, so that a container which may look into it finds nothing.
class PodPidNamespace {
 public:
  explicit PodPidNamespace(Children& children) : children_(children) {}
  // Made when first asked for; anew if its first process has ended.
  StatusOr<std::string> Path();

 private:
  Children& children_;
  std::optional<PidNamespace> namespace_;
};

// The first process itself: the agent's program under the argument kPodInitArgument. Returns only an error.
constexpr const char* kPodInitArgument = "--pod-init";
Status RunPodInit();

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_PID_NAMESPACE_H_
