// One pod in memory: its state and its containers', as every reader sees them.
#ifndef HUSK_SANDBOX_POD_H_
#define HUSK_SANDBOX_POD_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "hypervisor/hypervisor.h"
#include "images/image_service.h"
#include "sandbox/container_output.h"
#include "sandbox/event_hub.h"
#include "sandbox/observer.h"
#include "sandbox/pod_meter.h"
#include "sandbox/pod_monitor.h"
#include "sandbox/store/store.h"
#include "sandbox/types.h"
#include "sandbox/volumes/pod_volumes.h"
#include "sandbox/waiting.h"

namespace husk::sandbox {

// A disk of the VM that a container uses beside its image's.
struct ContainerDisk {
  std::string key;  // what is on it: equal keys are the same disk
  std::uint32_t lun = 0;
  std::shared_ptr<images::ImageLease> lease;  // null if it is no image's, or the image was lost
};

// What does not change about a container once it is made.
struct Container {
  std::string id;
  std::string stop_signal;                    // a name or number; empty: SIGTERM
  std::optional<std::uint32_t> lun;           // where its image's disk is in the VM
  std::shared_ptr<images::ImageLease> lease;  // null if the image was lost
  std::vector<ContainerDisk> disks;
  std::shared_ptr<ContainerOutput> output;  // null if it had exited when this process adopted it
  // Who writes to its standard input: one at a time.
  std::shared_ptr<TurnLock> input_turns = std::make_shared<TurnLock>();
};

// What a pod in memory holds of its running VM.
struct PodVm {
  std::shared_ptr<hypervisor::Vm> vm;
  std::shared_ptr<agent::AgentClient> client;
  std::shared_ptr<PodVolumes> volumes;
  std::optional<hypervisor::VmInformation> information;  // as last asked; absent: not known
  std::uint32_t online_vcpus = 0;                        // that the guest uses; 0: not known
};

// Thread safe. Its own mutex is held for moments only and nothing slow is done under it, so that reads wait for nobody.
// What changes the outside world goes on under `turns()`, one operation at a time.
class Pod {
 public:
  // From a record of the store; NOTREADY, without VM and containers. Every change that lists and statuses show is told
  // to `events`, except those that an earlier process has told, and each exit to `observer`. Both must outlive the pod.
  Pod(PodRecord record, EventHub* events, Observer* observer);
  Pod(const Pod&) = delete;
  Pod& operator=(const Pod&) = delete;

  [[nodiscard]] const std::string& id() const { return record_.id; }
  [[nodiscard]] const PodConfig& config() const { return record_.config; }
  [[nodiscard]] uid_t user() const { return record_.user; }
  [[nodiscard]] NetworkRequest network_request() const;

  // ---- operations ---------------------------------------------------------------------------------------------------

  TurnLock& turns() { return turns_; }
  // `context`, ended also by RequestStop and by the end of the VM.
  [[nodiscard]] Context Interruptible(const Context& context) const;
  // Ends what is under way inside the pod; nothing new can be begun.
  void RequestStop();
  [[nodiscard]] bool stop_requested() const;
  // A failure of an interrupted operation in words that say why it was interrupted; other failures as they are.
  [[nodiscard]] Status Explain(const Status& status) const;
  // While an adoption waits for the guest: what would talk to the guest, and takes no turn, waits for its end.
  void SetAdopting(bool adopting);
  Status AwaitAdopted(const Context& context);
  // FAILED_PRECONDITION unless the pod is READY and not being stopped.
  [[nodiscard]] Status CheckReady() const;

  // ---- state --------------------------------------------------------------------------------------------------------

  [[nodiscard]] PodStatus Snapshot(bool verbose) const;
  [[nodiscard]] bool ready() const;
  // What its containers may use together, as last announced; `config()` keeps what it was made with.
  void SetResources(LinuxResources resources, LinuxResources overhead);
  void SetNetwork(NetworkResult network);
  [[nodiscard]] NetworkResult network() const;
  // READY, unless the VM has ended meanwhile: then an error that says so.
  Status SetReady();
  // Its VM and network are gone, and that is recorded. Its removal too, for `removed`.
  void SetStopped();
  [[nodiscard]] bool stopped() const;
  void SetRemoved();
  [[nodiscard]] bool removed() const;
  // After it is listed no longer.
  void TellRemoved();

  // The end of the VM: the pod is NOTREADY, its containers are EXITED with this code, reason and message. Those that
  // changed, to be recorded. Of several calls the first one counts.
  std::vector<ContainerStatus> MarkEnded(const std::string& why, std::int32_t exit_code, const std::string& reason);
  // Absent while the VM is not known to have ended.
  [[nodiscard]] std::optional<std::string> ended() const;

  // ---- the VM -------------------------------------------------------------------------------------------------------

  void SetVm(PodVm vm);
  // As PodVm's, when they have changed. Nothing without a VM.
  void SetVmInformation(hypervisor::VmInformation information);
  void SetOnlineVcpus(std::uint32_t count);
  [[nodiscard]] std::optional<hypervisor::VmInformation> vm_information() const;
  [[nodiscard]] std::uint32_t online_vcpus() const;
  // 0: not known.
  [[nodiscard]] std::uint64_t vm_memory_bytes() const;
  // As PodRecord::resizing. Under the turn, like what it is about.
  void SetResizing(bool resizing);
  [[nodiscard]] bool resizing() const;
  // vm_information is not to be relied on: the VM's size is being changed, or its guest had not done yet what it was
  // asked for. SetVmInformation ends it. Likewise.
  void DoubtSize();
  [[nodiscard]] bool size_in_doubt() const;
  // PodNeeds' demanded_memory_bytes. Likewise.
  void SetMemoryDemand(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t memory_demand() const;
  // How much memory the VM had when the guest was told last that there can be more; 0: it was told that there cannot,
  // or that is not known. Likewise.
  void SetMarkedMemory(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t marked_memory() const;
  // The containers' limits in the guest may not be those that are shown. Likewise.
  void SetLimitsInDoubt(bool in_doubt);
  [[nodiscard]] bool limits_in_doubt() const;
  [[nodiscard]] std::shared_ptr<hypervisor::Vm> vm() const;
  [[nodiscard]] std::shared_ptr<agent::AgentClient> client() const;
  // Null without a VM.
  [[nodiscard]] std::shared_ptr<PodVolumes> volumes() const;
  // Thread safe by itself; LetGo ends its questions.
  [[nodiscard]] PodMeter& meter() const { return meter_; }
  // The monitor's handlers may use the pod: it outlives its monitor.
  void StartMonitor(MonitorHandlers handlers);
  // Hands the container's output to the monitor.
  void Watch(const std::string& container_id);
  // Stops the monitor, closes the channel, drops the VM object; the VM itself is not touched. Under the turn.
  void LetGo();

  // ---- containers ---------------------------------------------------------------------------------------------------

  void AddContainer(Container container, ContainerStatus status);
  // One that an earlier process made, as that one showed it: only what has changed since is told.
  void AdoptContainer(Container container, ContainerStatus status);
  // One whose removal an earlier process had begun.
  void TellContainerRemoved(const std::string& id);
  // No longer listed, nor watched.
  void DropContainer(const std::string& id);
  // With one entry per container whose id begins with the prefix.
  [[nodiscard]] std::vector<std::string> ContainerIds(const std::string& prefix) const;
  [[nodiscard]] std::optional<Container> container(const std::string& id) const;
  [[nodiscard]] std::optional<ContainerStatus> container_status(const std::string& id) const;
  [[nodiscard]] std::vector<ContainerStatus> ContainerSnapshots() const;
  [[nodiscard]] std::vector<Container> containers() const;

  // CREATED to RUNNING; false if it is not CREATED any more.
  bool SetRunning(const std::string& id, std::int64_t started_at, std::uint32_t guest_pid);
  // In force, as the guest has confirmed: shown from now on, and nothing else is wanted.
  void SetContainerResources(const std::string& id, LinuxResources resources);
  // Recorded, and not confirmed by the guest; those that are shown are, or were.
  void SetWantedResources(const std::string& id, LinuxResources resources);
  // Absent: those that are shown.
  [[nodiscard]] std::optional<LinuxResources> wanted_resources(const std::string& id) const;
  // To EXITED. What it is now, if this call changed it. `record` is called with that before anyone can see it.
  bool SetExited(const std::string& id, std::int64_t finished_at, std::int32_t exit_code, const std::string& reason,
                 const std::string& message, const std::function<void(const ContainerStatus&)>& record);
  // True for the first caller: the stop signal is sent once.
  bool TakeStopSignal(const std::string& id);
  // Until the container is EXITED or gone.
  Status WaitForExit(const Context& context, const std::string& id);

 private:
  struct Entry {
    Container container;
    ContainerStatus status;
    std::optional<LinuxResources> wanted = std::nullopt;
    bool stop_signalled = false;
  };

  // Under the mutex, so that events come in the order of the changes.
  void Tell(EventType type, const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellExit(const ContainerStatus& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] PodStatus SnapshotLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Insert(Container container, ContainerStatus status, bool adopted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const PodRecord record_;
  EventHub* const events_;
  Observer* const observer_;
  TurnLock turns_;
  std::stop_source stop_;  // thread safe by itself

  mutable Mutex mutex_;
  ConditionVariable changed_;
  PodState state_ ABSL_GUARDED_BY(mutex_) = PodState::kNotReady;
  NetworkResult network_ ABSL_GUARDED_BY(mutex_);
  LinuxResources resources_ ABSL_GUARDED_BY(mutex_);
  LinuxResources overhead_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::string> ended_ ABSL_GUARDED_BY(mutex_);
  bool adopting_ ABSL_GUARDED_BY(mutex_) = false;
  bool resizing_ ABSL_GUARDED_BY(mutex_);
  bool size_in_doubt_ ABSL_GUARDED_BY(mutex_) = false;
  bool limits_in_doubt_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t memory_demand_ ABSL_GUARDED_BY(mutex_) = 0;
  std::uint64_t marked_memory_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_requested_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool removed_ ABSL_GUARDED_BY(mutex_) = false;
  bool told_ready_ ABSL_GUARDED_BY(mutex_);  // a pod that was never READY is no news
  bool told_stopped_ ABSL_GUARDED_BY(mutex_);
  PodVm vm_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Entry> containers_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<PodMonitor> monitor_ ABSL_GUARDED_BY(mutex_);  // its thread uses the rest
  mutable PodMeter meter_;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_POD_H_
