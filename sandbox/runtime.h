// The life of pods and containers: what the CRI's RuntimeService is made of.
#ifndef HUSK_SANDBOX_RUNTIME_H_
#define HUSK_SANDBOX_RUNTIME_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/status.h"
#include "hypervisor/hypervisor.h"
#include "images/image_service.h"
#include "sandbox/client_streams.h"
#include "sandbox/host/cgroup.h"
#include "sandbox/network/network.h"
#include "sandbox/port_exchange.h"
#include "sandbox/stats.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// Blocking and thread safe. Operations on one pod take turns; operations on different pods do not wait for each other;
// reads wait for nobody. Stopping a pod interrupts an operation of it that is under way.
//
// A repeated call joins the one in flight, or finds what it did done. Unknown ids: OK for stops and removals, NOT_FOUND
// for everything else. Ids may be given as unique prefixes.
class Runtime {
 public:
  virtual ~Runtime() = default;

  // Adopts what an earlier process left running, finishes or undoes what it left half done, destroys what belongs to
  // nobody. Called once, before anything else. What could not be cleaned is reported and tried again by removals.
  virtual Status Recover(const Context& context) = 0;

  virtual StatusOr<std::string> RunPod(const Context& context, const PodConfig& config) = 0;
  virtual Status StopPod(const Context& context, const std::string& id) = 0;
  virtual Status RemovePod(const Context& context, const std::string& id) = 0;
  virtual StatusOr<PodStatus> GetPod(const std::string& id, bool verbose) = 0;
  // The pod's limits from now on; what is 0 or empty stays. Its VM follows, as at UpdateContainerResources.
  // FAILED_PRECONDITION unless READY.
  virtual Status UpdatePodResources(const Context& context, const std::string& id, const LinuxResources& resources,
                                    const LinuxResources& overhead) = 0;
  virtual std::vector<PodStatus> ListPods(const PodFilter& filter) = 0;

  virtual StatusOr<std::string> CreateContainer(const Context& context, const std::string& pod_id,
                                                const ContainerConfig& config) = 0;
  virtual Status StartContainer(const Context& context, const std::string& id) = 0;
  // The stop signal, then SIGKILL after `grace`; at once if it is zero. Returns when the container has exited.
  virtual Status StopContainer(const Context& context, const std::string& id, std::chrono::nanoseconds grace) = 0;
  virtual Status RemoveContainer(const Context& context, const std::string& id) = 0;
  // Changes the limits of a container that is CREATED or RUNNING, which goes on; what is 0 or empty stays. Status shows
  // what is in force. FAILED_PRECONDITION if it has exited; INVALID_ARGUMENT if the guest's kernel refuses the values.
  // The VM grows before the limits do and shrinks after them: RESOURCE_EXHAUSTED, and nothing has changed, if it cannot
  // grow; what the guest does not give back at once is waited for after the call.
  virtual Status UpdateContainerResources(const Context& context, const std::string& id,
                                          const LinuxResources& change) = 0;
  virtual StatusOr<ContainerStatus> GetContainer(const std::string& id, bool verbose) = 0;
  virtual std::vector<ContainerStatus> ListContainers(const ContainerFilter& filter) = 0;

  // What they use, asked anew of the guests if they answer within a second together, else as they said last; the
  // timestamps tell. Lists have READY pods and RUNNING containers only; the filters' states are ignored.
  virtual StatusOr<PodStats> GetPodStats(const Context& context, const std::string& id) = 0;
  virtual std::vector<PodStats> ListPodStats(const Context& context, const PodFilter& filter) = 0;
  virtual StatusOr<ContainerStats> GetContainerStats(const Context& context, const std::string& id) = 0;
  virtual std::vector<ContainerStats> ListContainerStats(const Context& context, const ContainerFilter& filter) = 0;

  // Of each pod that has a VM. Asks nobody.
  virtual std::vector<VmFigures> ListVms() = 0;

  // timeout zero: none. DEADLINE_EXCEEDED after it, the process killed. Each stream is cut at 16 MB.
  virtual StatusOr<ExecResult> ExecSync(const Context& context, const std::string& id,
                                        const std::vector<std::string>& command, std::chrono::nanoseconds timeout) = 0;
  // Runs a command with a client at its streams, and returns its exit code. When the context ends before it the process
  // is killed: have it end when the client goes. NOT_FOUND also if the program is not in the container.
  virtual StatusOr<std::int32_t> Exec(const Context& context, const std::string& id, const ExecOptions& options,
                                      ClientStreams& streams) = 0;
  // A client at the streams of the container's first process, from now until its output ends. The container does not
  // wait for it: RESOURCE_EXHAUSTED if it falls too far behind. Its input ends the container's only if that has
  // stdin_once, and then however it goes. FAILED_PRECONDITION unless the container runs, or if it has no input.
  virtual Status Attach(const Context& context, const std::string& id, const AttachOptions& options,
                        ClientStreams& streams) = 0;
  // Carries the connections of `exchange` to ports on the loopback inside the pod's VM, until no more will come or the
  // context ends. One that cannot be made, or breaks, ends by itself. FAILED_PRECONDITION unless the pod is READY.
  virtual Status PortForward(const Context& context, const std::string& id, PortExchange& exchange) = 0;
  // FAILED_PRECONDITION unless the container runs.
  virtual Status ReopenContainerLog(const Context& context, const std::string& id) = 0;

  // Lets go of everything and leaves the VMs running, for another process to adopt. Nothing may be called afterwards.
  virtual void Detach() = 0;
};

class EventHub;
class Observer;

struct RuntimeOptions {
  std::string root_directory;   // survives a reboot: the store, the template of the scratch disk
  std::string state_directory;  // below /run: one directory a pod, with sockets; scratch disks are in root_directory
  uid_t first_user = 400'000;   // QEMU's uids, one a pod, and gids alike
  std::uint32_t user_count = 20'000;
  std::uint32_t default_vcpus = 1;
  std::uint32_t maximum_vcpus = 0;    // 0: the host's CPUs
  std::uint32_t unlimited_vcpus = 0;  // of a VM with a container that has no limit of CPU; at least default_vcpus
  std::uint64_t default_memory_bytes = std::uint64_t{256} << 20;
  std::uint64_t maximum_memory_bytes = 0;  // 0: the host's memory
  // A VM with a container that has no limit of memory grows up to this as its guest runs short; not at all where this
  // is default_memory_bytes. 0: half of maximum_memory_bytes.
  std::uint64_t unlimited_memory_bytes = 0;
  // More would only take the processors from each other, and end after the caller's deadline. 0: one a host CPU, and
  // one.
  std::uint32_t concurrent_boots = 0;
  std::uint64_t scratch_bytes = std::uint64_t{8} << 30;  // sparse
  std::string cgroup_root = "/husk";                     // for pods without cgroup_parent
  // Where specifications of CDI devices are looked for; of two that define a device the one in the later directory.
  std::vector<std::string> cdi_directories = {"/etc/cdi", "/var/run/cdi"};
  // A stop of a container that has lasted so long in vain ends the VM, if its guest answers nothing at all.
  std::chrono::nanoseconds mute_guest_limit = std::chrono::minutes(1);
};

// Fills in from the host what is 0, the maxima in particular. INVALID_ARGUMENT for defaults above them.
StatusOr<RuntimeOptions> WithHostLimits(RuntimeOptions options);

// Those borrowed must outlive the runtime.
struct RuntimeParts {
  hypervisor::Hypervisor* hypervisor = nullptr;
  agent::AgentConnector* agents = nullptr;
  images::ImageService* images = nullptr;
  Network* network = nullptr;
  HostCgroups* cgroups = nullptr;  // null: the runtime makes its own, with RuntimeOptions::cgroup_root
  EventHub* events = nullptr;      // null: nobody listens
  Observer* observer = nullptr;    // null: nobody looks
};

StatusOr<std::unique_ptr<Runtime>> NewRuntime(const RuntimeOptions& options, const RuntimeParts& parts);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_RUNTIME_H_
