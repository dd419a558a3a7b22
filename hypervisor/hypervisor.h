// Virtual machines, as sandbox/ sees them. Nothing here knows of pods, images or Kubernetes, and nothing above knows
// whether a VM was booted, cloned or taken from a pool.
#ifndef HUSK_HYPERVISOR_HYPERVISOR_H_
#define HUSK_HYPERVISOR_HYPERVISOR_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::hypervisor {

enum class Accelerator { kKvm, kTcg };

// What runs the guest's instructions, and how that was found out.
struct AcceleratorProbe {
  Accelerator accelerator = Accelerator::kTcg;
  std::string reason;  // one sentence, such as "/dev/kvm opens, but the CPU has no vmx or svm"
};

// A file that is a part of a disk. Length in bytes, a multiple of 512.
struct DiskExtent {
  std::string path;
  std::uint64_t length = 0;
};

// A disk: its extents one after the other. Opened by the caller's process, as its user; QEMU gets descriptors.
struct DiskConfig {
  std::vector<DiskExtent> extents;
  bool read_only = true;  // a writable disk has just one extent
};

// A directory of the host that a guest mounts as a virtiofs.
struct SharedDirectory {
  std::string tag;                        // the file system's name in the guest: 1 to 36 letters, digits, "-", "_"
  UniqueFd directory;                     // what is mounted below it at the time of the call is shared too
  std::string path;                       // where it was found; for messages alone
  bool read_only = false;                 // kept by the host, whatever the guest does
  bool alone = false;                     // without what is mounted below it: FollowMounts brings that
  bool immediate = false;                 // the guest asks for each name anew: what changes on the host shows at once
  std::vector<std::string> cgroup_procs;  // of cgroups that its file server shall be in, as VmConfig's
};

// A shared directory whose guest shall have what the host mounts below it later.
struct FollowedShare {
  std::string tag;
  std::string path;  // of the directory, shared alone; nothing is followed once something else has taken its place
  bool read_only = false;  // as in SharedDirectory
};

struct NetworkDevice {
  UniqueFd tap;             // attached to a tap device without IFF_PERSIST: it goes when the VM goes
  std::string mac_address;  // "02:..."
};

struct VmConfig {
  std::string id;                          // the sandbox's: names things, has no other meaning
  std::uint32_t vcpus = 1;                 // that the guest begins with
  std::uint32_t maximum_vcpus = 1;         // slots for hotplug are made for the difference; an emulated VM has them all
  std::uint64_t memory_bytes = 0;          // a multiple of 2 MiB
  std::uint64_t maximum_memory_bytes = 0;  // at least memory_bytes; the difference can be plugged (virtio-mem)
  uid_t user = 0;                          // QEMU's own; never 0
  gid_t group = 0;
  std::string state_directory;            // exists, 0700, the caller's; sockets, logs and identity go there
  std::vector<std::string> cgroup_procs;  // "cgroup.procs" or "tasks" files of cgroups that QEMU shall be in
  std::string network_namespace;          // path of the namespace QEMU shall live in; empty: an empty one of its own
  std::vector<NetworkDevice> network_devices;
  DiskConfig scratch;  // becomes LUN 0
};

// A process that its pid alone does not identify: pids are used again.
struct ProcessIdentity {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // field 22 of /proc/PID/stat, clock ticks since boot
};

struct VmInformation {
  ProcessIdentity process;
  Accelerator accelerator = Accelerator::kTcg;
  std::vector<std::string> command_line;
  std::uint32_t vcpus = 0;  // as the VM has them now; of an emulated one's the guest may have begun with fewer
  std::uint32_t maximum_vcpus = 0;
  bool vcpus_stay = false;         // what is plugged in cannot be taken out again; the guest can take it offline
  std::uint64_t memory_bytes = 0;  // as the VM has it now
  std::uint64_t requested_memory_bytes = 0;  // less than that as long as the guest has not given back all that it shall
  std::uint64_t boot_memory_bytes = 0;       // what it was started with, which it cannot give back
  std::uint64_t maximum_memory_bytes = 0;
};

// A page of the guest's kernel that has come to lie somewhere in plugged memory holds 2 MiB of it for as long as it
// likes. So little is not worth asking for again; it is part of what is told.
inline constexpr std::uint64_t kMemoryThatMayStay = std::uint64_t{16} << 20;

// How a VM ended.
struct VmExit {
  std::string reason;  // QEMU's own last words, or the signal; one line
};

// One running VM. Thread safe; calls that change it take turns. Destroying the object closes its descriptors and leaves
// the VM running: only Kill ends it.
class Vm {
 public:
  virtual ~Vm() = default;

  // Where agent/client connects to the guest's agent.
  [[nodiscard]] virtual std::string agent_socket() const = 0;
  [[nodiscard]] virtual StatusOr<VmInformation> Information(const Context& context) = 0;

  // Plugs a disk in; the LUN of the one SCSI controller at which the guest finds it. ENOSPC-like exhaustion of LUNs is
  // RESOURCE_EXHAUSTED.
  virtual StatusOr<std::uint32_t> AttachDisk(const Context& context, const DiskConfig& disk) = 0;
  // Takes it away and closes its files. OK if there is no such LUN. The guest must have unmounted it.
  virtual Status DetachDisk(const Context& context, std::uint32_t lun) = 0;
  // LUNs in use, without the scratch disk's; after Recover too.
  [[nodiscard]] virtual StatusOr<std::vector<std::uint32_t>> AttachedDisks(const Context& context) = 0;

  // Shares a directory through a file server of its own, which outlives this process and ends with the VM. OK if there
  // is a share with that tag already. RESOURCE_EXHAUSTED when the VM has as many as it can; FAILED_PRECONDITION where
  // there is no file server. When the server of a share ends by itself the VM is killed: its guest would wait for ever
  // for answers, with processes that cannot be killed.
  virtual Status AttachSharedDirectory(const Context& context, const SharedDirectory& directory) = 0;
  // Makes what is mounted below the directory in its file server what is mounted there on the host now: its own copies
  // of the host's mounts, so that the host can unmount its. To be called again when the host's table of mounts changes.
  // `gone`: gets the paths, relative to the directory, of what was taken away, also when the call fails later; the
  // guest holds on to it until it looks there again. NOT_FOUND if there is no share with that tag.
  virtual Status FollowMounts(const Context& context, const FollowedShare& share, std::vector<std::string>& gone) = 0;
  // Takes it away. OK if there is none. The guest must have unmounted it.
  virtual Status DetachSharedDirectory(const Context& context, const std::string& tag) = 0;
  // Their tags; after Recover too.
  [[nodiscard]] virtual StatusOr<std::vector<std::string>> SharedDirectories(const Context& context) = 0;

  // The memory that the VM has beside what it was started with, a multiple of 4 MiB. More of it: returns when the guest
  // has taken it; RESOURCE_EXHAUSTED, and it stays as it was, when VmConfig allows less or the guest does not take it
  // in time. Less: the guest gives back what it does not use, when it can; returns when it has, but for
  // kMemoryThatMayStay, or after some seconds.
  virtual Status SetPluggedMemory(const Context& context, std::uint64_t bytes) = 0;
  // `callback` is told what the guest has of it when that has changed, whether somebody waits for it or not: on a
  // thread of hypervisor/'s, once a second at most, and the last change always. It must not block nor destroy the Vm.
  // Only one callback is kept. It is never called, nor still running, after the Vm's destructor.
  virtual void OnPluggedMemory(std::function<void(std::uint64_t bytes)> callback) = 0;

  // Numbers of vCPUs begin with 0, and those that the VM has are always the first ones: `count` of them from now on.
  // More: returns when they are plugged in; the guest has to bring them online. Less: takes out those with the highest
  // numbers, one after the other, each when the guest has let it go. FAILED_PRECONDITION when the guest refuses that,
  // or they have to stay; DEADLINE_EXCEEDED when it does not answer in time; those that went before are gone.
  // RESOURCE_EXHAUSTED for more than VmConfig allows, INVALID_ARGUMENT for 0.
  virtual Status SetVcpus(const Context& context, std::uint32_t count) = 0;

  // `callback` is called once, on a thread of hypervisor/'s, as soon as the VM's process has ended: at once if it has.
  // It must not block nor destroy the Vm. Only one callback is kept. It is never called, nor still running, after the
  // Vm's destructor, which waits for it.
  virtual void OnExit(std::function<void(const VmExit&)> callback) = 0;
  [[nodiscard]] virtual bool alive() const = 0;

  // Kills the VM's process and waits until it is gone and reaped. OK if it is gone already.
  virtual Status Kill(const Context& context) = 0;
  // The end of what the guest's kernel wrote to its console, at most 64 KiB; for error messages and debugging.
  [[nodiscard]] virtual std::string ConsoleTail(const Context& context) = 0;
};

class Hypervisor {
 public:
  virtual ~Hypervisor() = default;

  [[nodiscard]] virtual AcceleratorProbe accelerator() const = 0;
  // "7.2.22", of the binary that will be used.
  [[nodiscard]] virtual StatusOr<std::string> Version(const Context& context) = 0;

  // Starts a VM and returns when its guest's first instruction has run; the agent comes up later. On failure nothing is
  // left over. The identity of the process is in state_directory before the process can do anything, so that a caller
  // which dies during this call finds it again by Recover.
  virtual StatusOr<std::unique_ptr<Vm>> Start(const Context& context, VmConfig config) = 0;

  // The VM that an earlier process started with this directory. NOT_FOUND if it does not live any more, or was never
  // whole; then nothing of it is running.
  virtual StatusOr<std::unique_ptr<Vm>> Recover(const Context& context, const std::string& state_directory) = 0;

  // Ends whatever was started with this directory, whole or not, and returns when it is gone. OK if nothing was.
  virtual Status Destroy(const Context& context, const std::string& state_directory) = 0;
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_HYPERVISOR_H_
