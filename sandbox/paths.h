// Where a runtime keeps its things.
//
//   <root>/                      survives a reboot
//     sandbox.db                 the store
//     scratch-templates/         formatted disks to copy
//     pods/<pod id>/scratch.img  the pod's scratch disk
//   <state>/                     below /run
//     pods/<pod id>/             the VM's: sockets, identity, QEMU's log; 0700
#ifndef HUSK_SANDBOX_PATHS_H_
#define HUSK_SANDBOX_PATHS_H_

#include <string>
#include <vector>

#include "agent/common/status.h"

namespace husk::sandbox {

struct Paths {
  std::string root;
  std::string state;

  [[nodiscard]] std::string store() const { return root + "/sandbox.db"; }
  [[nodiscard]] std::string scratch_templates() const { return root + "/scratch-templates"; }
  [[nodiscard]] std::string pod_roots() const { return root + "/pods"; }
  [[nodiscard]] std::string pod_root(const std::string& pod_id) const { return pod_roots() + "/" + pod_id; }
  [[nodiscard]] std::string scratch(const std::string& pod_id) const { return pod_root(pod_id) + "/scratch.img"; }
  [[nodiscard]] std::string vm_states() const { return state + "/pods"; }
  [[nodiscard]] std::string vm_state(const std::string& pod_id) const { return vm_states() + "/" + pod_id; }
};

// Makes the directory with mode 0700, and missing parents. OK if it is there.
Status MakePrivateDirectory(const std::string& path);
// With everything below it. OK if it is not there.
Status RemoveTree(const std::string& path);
// Names in the directory, without "." and ".."; none if it does not exist.
StatusOr<std::vector<std::string>> NamesIn(const std::string& path);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_PATHS_H_
