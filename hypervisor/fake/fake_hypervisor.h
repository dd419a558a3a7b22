// A Hypervisor whose VMs exist in memory only, for the tests of what is above hypervisor/.
#ifndef HUSK_HYPERVISOR_FAKE_FAKE_HYPERVISOR_H_
#define HUSK_HYPERVISOR_FAKE_FAKE_HYPERVISOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hypervisor/hypervisor.h"

namespace husk::hypervisor {

// A shared directory, without its descriptor.
struct FakeShare {
  std::string path;
  bool read_only = false;
  bool immediate = false;
  bool alone = false;
  int followed = 0;               // calls of FollowMounts
  std::vector<std::string> gone;  // what the next of them tells
};

// What a test sees of a VM of the fake: the VmConfig it was started with, without descriptors, and what became of it.
struct FakeVmRecord {
  std::string id;
  std::uint32_t vcpus = 0;  // as it has them now
  std::uint32_t maximum_vcpus = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t maximum_memory_bytes = 0;
  uid_t user = 0;
  gid_t group = 0;
  std::string state_directory;
  std::vector<std::string> cgroup_procs;
  std::string network_namespace;
  std::vector<std::string> mac_addresses;
  DiskConfig scratch;

  ProcessIdentity process;  // invented: no such process exists
  bool alive = false;
  std::string exit_reason;                    // once it is not alive
  std::map<std::uint32_t, DiskConfig> disks;  // by LUN, without the scratch disk
  std::map<std::string, FakeShare> shares;    // by tag
  std::uint64_t plugged_bytes = 0;
  std::uint64_t requested_bytes = 0;  // less than plugged_bytes while the guest keeps memory (KeepMemory)
};

// Where a failure can be made to happen.
enum class FakeOperation {
  kStart,
  kRecover,
  kDestroy,
  kAttachDisk,
  kDetachDisk,
  kAttachShare,
  kDetachShare,
  kFollowMounts,
  kPlugMemory,
  kSetVcpus,
  kInformation,
  kKill
};

// The host on which the fake's VMs live: it outlasts the FakeHypervisor objects made for it, as real VMs outlast huskd,
// and is the test's handle on them. Thread safe.
class FakeMachine {
 public:
  FakeMachine();
  ~FakeMachine();
  FakeMachine(const FakeMachine&) = delete;
  FakeMachine& operator=(const FakeMachine&) = delete;

  // After `successes` more calls of the operation have gone well, one fails with `error` and has no effect. One failure
  // per operation waits at a time.
  void FailNext(FakeOperation operation, Status error, int successes = 0);
  // From now on Start does not return until the context ends (its error; no VM is left) or ReleaseStarts is called.
  void HoldStarts();
  void ReleaseStarts();
  // Waits until this many calls of Start are held.
  void WaitForHeldStarts(int count);

  // What the next FollowMounts of that share says to be gone. `id`: VmConfig::id.
  void SetGone(const std::string& id, const std::string& tag, std::vector<std::string> gone);

  // The end of a VM that nobody asked for, like kill -9 of its QEMU. False if no such VM lives. `id`: VmConfig::id.
  bool KillVm(const std::string& id, const std::string& reason = "killed by signal 9");
  // All VMs end, as at a reboot of the host.
  void Reboot();

  // Guests give no memory back from now on, or do again: then at once what was asked of them meanwhile.
  void KeepMemory(bool keep);

  // Every VM that was ever started, in order.
  [[nodiscard]] std::vector<FakeVmRecord> vms() const;
  // The newest VM with this VmConfig::id.
  [[nodiscard]] std::optional<FakeVmRecord> vm(const std::string& id) const;
  [[nodiscard]] int alive_count() const;

  class State;  // the implementation's

 private:
  friend class FakeHypervisor;
  std::shared_ptr<State> state_;
};

// Keeps hypervisor.h's contract: callbacks of OnExit come on a thread of its own, LUNs run out after 255, a second
// Start with a directory whose VM lives is ALREADY_EXISTS. Destroying it leaves its machine's VMs alive; another one
// with the same machine recovers them.
class FakeHypervisor final : public Hypervisor {
 public:
  explicit FakeHypervisor(const FakeMachine& machine);

  [[nodiscard]] AcceleratorProbe accelerator() const override;
  [[nodiscard]] StatusOr<std::string> Version(const Context& context) override;
  StatusOr<std::unique_ptr<Vm>> Start(const Context& context, VmConfig config) override;
  StatusOr<std::unique_ptr<Vm>> Recover(const Context& context, const std::string& state_directory) override;
  Status Destroy(const Context& context, const std::string& state_directory) override;

 private:
  std::shared_ptr<FakeMachine::State> state_;
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_FAKE_FAKE_HYPERVISOR_H_
