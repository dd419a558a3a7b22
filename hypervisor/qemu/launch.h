// Starts husk-vm-launcher, which becomes QEMU.
#ifndef HUSK_HYPERVISOR_QEMU_LAUNCH_H_
#define HUSK_HYPERVISOR_QEMU_LAUNCH_H_

#include <functional>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/qemu/launcher/plan.h"

namespace husk::hypervisor {

// The child's descriptor table: 0 is /dev/null, 1 and 2 the log, and from 3 on what was added, in that order.
class ChildDescriptors {
 public:
  // The number that `descriptor` has in the child. It must stay open until Spawn has returned.
  int Add(int descriptor);
  [[nodiscard]] const std::vector<int>& descriptors() const { return descriptors_; }

 private:
  std::vector<int> descriptors_;
};

// A child of this process that waits for Go: it has written its identity, and confines itself no sooner than told.
struct Launched {
  ProcessIdentity identity;
  UniqueFd pidfd;
  UniqueFd go;
};

// Starts a program with these descriptors and nothing else; its pid. All signals are as in a fresh process.
StatusOr<pid_t> Spawn(const std::vector<std::string>& arguments, const ChildDescriptors& descriptors, int log);

// A socket pair whose one end becomes Launched::go and whose other is the launcher's.
struct GoSockets {
  UniqueFd ours;
  UniqueFd theirs;
};
StatusOr<GoSockets> MakeGoSockets();

// Waits until the launcher has announced its identity in `state_directory`, and checks that it is this child's. If it
// fails the child has been killed and reaped.
StatusOr<Launched> AwaitIdentity(const Context& context, pid_t child, GoSockets go, int state_directory);

// Lets it go on.
Status Go(Launched& launched);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_LAUNCH_H_
