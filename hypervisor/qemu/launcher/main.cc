// husk-vm-launcher: huskd's child that confines itself and then becomes QEMU or virtiofsd. Started as root by huskd
// alone; see plan.h for what it is told and steps.h for what it does.
//
// It stays huskd's direct child, so that huskd can reap it, and has a session of its own and no parent-death signal, so
// that it outlives huskd.
#include <cstdlib>
#include <string>
#include <vector>

#include "hypervisor/qemu/launcher/plan.h"
#include "hypervisor/qemu/launcher/steps.h"

int main(int argc, char** argv) {
  using namespace husk::hypervisor::launcher;
  Plan plan;
  std::string error;
  if (!ParsePlan(std::vector<std::string>(argv, argv + argc), plan, error)) Fail(error, 0);

  WriteIdentity(plan.state_directory);
  WaitForGo(plan.go);
  JoinCgroups(plan.cgroup_procs);
  RaiseOomScore();
  SetLimits(plan);
  const int share = CloneShare(plan);
  EnterNamespaces(plan);
  EnterPrivateRoot(plan.binds, share);
  if (share >= 0) {
    EnterUserNamespace();
  } else {
    DropPrivileges(plan);
  }
  CloseAllBut(plan.keep);
  Become(plan.command);
}
