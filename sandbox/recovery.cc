#include "sandbox/recovery.h"

#include <chrono>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sandbox/container_disks.h"
#include "sandbox/container_operations.h"
#include "sandbox/host/pod_id.h"
#include "sandbox/id.h"
#include "sandbox/logging.h"
#include "sandbox/pod_operations.h"
#include "sandbox/resize.h"

namespace husk::sandbox {
namespace {

// Nearly all have answered by then. Longer, and every pod whose guest stands still would hold up huskd's start.
constexpr auto kPromptWait = std::chrono::seconds(2);
// A guest that takes longer is slow, not dead: its VM lives. See docs/adr/0041-a-silent-guest-is-kept.md.
constexpr auto kAgentWait = std::chrono::seconds(20);
// For the ends that came while no huskd was there: their output has to be fetched first.
constexpr auto kMissedExitWait = std::chrono::seconds(5);
constexpr auto kOrphanTimeout = std::chrono::seconds(30);

constexpr char kGuestRestarted[] = "its guest was restarted, its containers are gone";

// By container id.
using Processes = std::map<std::string, agent::v1::ProcessStatus>;

// Adopts one pod whose record says READY.
class Adoption {
 public:
  Adoption(Environment& environment, const Context& context, Pod& pod, std::vector<ContainerRecord> containers)
      : environment_(environment), context_(context), pod_(pod), containers_(std::move(containers)) {}

  // True: the guest has not answered, and Late is to go on.
  StatusOr<bool> Begin(const std::string& guest_boot_id) {
    guest_boot_id_ = guest_boot_id;
    auto vm = environment_.parts.hypervisor->Recover(context_, environment_.paths.vm_state(pod_.id()));
    if (absl::IsNotFound(vm.status())) {
      KeepDead("its VM ended while no huskd was running");
      return false;
    }
    if (!vm.ok()) {
      // Not known to be gone, so not destroyed; a stop of the pod will.
      KeepDead(absl::StrCat("its VM could not be adopted: ", absl::string_view(vm.status().message())));
      return vm.status();
    }
    TakeVm(environment_, context_, pod_, *std::move(vm));
    const Guest guest = AskGuest(kPromptWait);
    if (guest == Guest::kAnother) {
      HUSK_RETURN_IF_ERROR(EndVm());
      KeepDead(kGuestRestarted);
      return false;
    }
    StartPodMonitor(environment_, pod_);
    for (const ContainerRecord& record : containers_) Adopt(record);
    AdoptSize(environment_, pod_);
    if (processes_) DetachUnusedDisks();
    HUSK_RETURN_IF_ERROR(pod_.SetReady());
    AwaitMissedExits();
    // Late would wait for the turn of what is owed.
    if (guest != Guest::kSilent) OweResize();
    spdlog::info("pod={} adopted{}", pod_.id(), guest == Guest::kSilent ? "; its guest has not answered yet" : "");
    return guest == Guest::kSilent;
  }

  // The pod is shown by now, its containers as their records have them.
  void Late(const Context& context) {
    context_ = context;
    switch (AskGuest(kAgentWait)) {
      case Guest::kSilent:
        // The pod is being stopped, or huskd.
        if (absl::IsCancelled(silence_)) return;
        spdlog::error("pod={} its VM lives, but its agent does not answer: {}", pod_.id(), Words(silence_));
        OweResize();
        return;
      case Guest::kAnother:
        EndShown();
        return;
      case Guest::kSame:
        for (const ContainerRecord& record : containers_) AdoptLate(record);
        DetachUnusedDisks();
        OweResize();
        spdlog::info("pod={} its guest has answered", pod_.id());
    }
  }

  // Without a VM: what was made is EXITED, what was half made is gone.
  void KeepDead(const std::string& why) {
    std::set<std::string> ended;
    for (const ContainerRecord& record : containers_) {
      if (IsHalf(record)) {
        Forget(record);
        continue;
      }
      if (record.phase != ContainerPhase::kExited) ended.insert(record.status.id);
      AddContainer(record, ShownState(record.phase), nullptr);
    }
    pod_.MarkEnded(why, 255, "Unknown");
    for (const ContainerStatus& status : pod_.ContainerSnapshots()) {
      if (ended.contains(status.id)) Report(environment_.store->SetContainerExited(status), status.id);
    }
  }

 private:
  static ContainerState ShownState(ContainerPhase phase) {
    if (phase == ContainerPhase::kStarted) return ContainerState::kRunning;
    return phase == ContainerPhase::kExited ? ContainerState::kExited : ContainerState::kCreated;
  }

  enum class Guest {
    kSame,     // that the containers were started in
    kAnother,  // it was restarted
    kSilent,   // within this time: taken for the same
  };

  Guest AskGuest(Context::Clock::duration patience) {
    const Context limited = pod_.Interruptible(context_.WithTimeout(patience));
    const auto client = pod_.client();
    if (client == nullptr) return Guest::kSilent;
    const auto hello = client->Hello(limited);
    if (hello.ok() && hello->guest_boot_id() != guest_boot_id_) return Guest::kAnother;
    silence_ = hello.status();
    if (!silence_.ok()) return Guest::kSilent;
    auto list = client->ListProcesses(limited);
    silence_ = list.status();
    if (!silence_.ok()) return Guest::kSilent;
    processes_.emplace();
    for (auto& process : *list->mutable_processes()) {
      if (process.exec_id().empty()) {
        (*processes_)[process.container_id()] = process;
      } else {
        RemoveExec(limited, *client, process);
      }
    }
    CloseForwardings(limited, *client);
    return Guest::kSame;
  }

  void EndShown() {
    // Before the end of the VM is seen by others, who know no reason.
    for (const ContainerStatus& status : pod_.MarkEnded(kGuestRestarted, 255, "Unknown")) {
      Report(environment_.store->SetContainerExited(status), status.id);
    }
    const Status ended = EndVm();
    if (!ended.ok()) spdlog::error("pod={} end its VM, whose guest was restarted: {}", pod_.id(), Words(ended));
  }

  Status EndVm() {
    HUSK_RETURN_IF_ERROR(environment_.parts.hypervisor->Destroy(context_, environment_.paths.vm_state(pod_.id())));
    pod_.LetGo();
    return absl::OkStatus();
  }

  // Who ran a command was a client of the last huskd, and is gone with it.
  void RemoveExec(const Context& context, agent::AgentClient& client, const agent::v1::ProcessStatus& process) const {
    agent::v1::RemoveExecRequest request;
    request.set_container_id(process.container_id());
    request.set_exec_id(process.exec_id());
    const Status removed = client.RemoveExec(context, request);
    if (!removed.ok()) spdlog::warn("pod={} end a command of the last run: {}", pod_.id(), Words(removed));
  }

  // Nor has anybody the connections any more that the last huskd carried.
  void CloseForwardings(const Context& context, agent::AgentClient& client) const {
    const Status closed = client.CloseForwarding(context, agent::v1::CloseForwardingRequest());
    if (!closed.ok()) spdlog::warn("pod={} close the last run's connections: {}", pod_.id(), Words(closed));
  }

  void Adopt(const ContainerRecord& record) {
    const std::string& id = record.status.id;
    if (IsHalf(record)) return RemoveHalf(record);
    if (record.phase == ContainerPhase::kExited) {
      AddContainer(record, ContainerState::kExited, nullptr);
      return;
    }
    auto output = OpenOutput(pod_.config(), id, record.status.config, record.checkpoint);
    if (!output.ok()) {
      spdlog::error("pod={} container={} {}; its output is dropped", pod_.id(), id, Words(output.status()));
      output = std::make_shared<ContainerOutput>(id, NewDiscardingLog(record.checkpoint), record.status.config.tty);
    }
    bool started = record.phase == ContainerPhase::kStarted;
    std::uint32_t guest_pid = 0;
    if (processes_) {
      const auto process = processes_->find(id);
      // One that the guest does not know is watched: the monitor finds that it is gone.
      started = process == processes_->end() || process->second.state() != agent::v1::CREATED;
      if (process != processes_->end()) guest_pid = process->second.pid();
      if (process != processes_->end() && process->second.state() == agent::v1::EXITED) missed_.push_back(id);
    }
    const bool shown_running = started && record.phase == ContainerPhase::kStarted;
    AddContainer(record, shown_running ? ContainerState::kRunning : ContainerState::kCreated, *std::move(output),
                 guest_pid);
    pod_.volumes()->Adopt(record.status.config.mounts);
    if (!started) return;
    if (!shown_running) ShowStarted(id, guest_pid);
    pod_.Watch(id);
  }

  // What only the guest could tell of one that is shown already.
  void AdoptLate(const ContainerRecord& record) {
    if (IsHalf(record)) return RemoveHalf(record);
    const std::string& id = record.status.id;
    if (record.phase == ContainerPhase::kExited || record.phase == ContainerPhase::kStarted) return;
    const auto process = processes_->find(id);
    const bool known = process != processes_->end();
    if (known && process->second.state() == agent::v1::CREATED) return;
    ShowStarted(id, known ? process->second.pid() : 0);
    pod_.Watch(id);
  }

  // Started without a record.
  void ShowStarted(const std::string& id, std::uint32_t guest_pid) {
    const std::int64_t started_at = NowNanoseconds();
    Report(environment_.store->SetContainerStarted(id, started_at), id);
    pod_.SetRunning(id, started_at, guest_pid);
  }

  static bool IsHalf(const ContainerRecord& record) {
    return record.phase == ContainerPhase::kCreating || record.phase == ContainerPhase::kRemoving;
  }

  // Half made, or half removed. Without an answer it stays in the guest and in the store.
  void RemoveHalf(const ContainerRecord& record) {
    if (!processes_ || !RemoveFromGuest(record.status.id)) return;
    Forget(record);
    half_left_ = true;
  }

  void AddContainer(const ContainerRecord& record, ContainerState state, std::shared_ptr<ContainerOutput> output,
                    std::uint32_t guest_pid = 0) {
    auto lease = environment_.parts.images->Acquire(record.status.image_id);
    if (!lease.ok()) {
      spdlog::warn("pod={} container={} its image: {}", pod_.id(), record.status.id, Words(lease.status()));
    }
    ContainerStatus status = record.status;
    status.state = state;
    status.guest_pid = guest_pid;
    const LinuxResources recorded = status.config.resources;
    // A change was under way: what is recorded is wanted, and in force when the guest has answered.
    const bool changing = pod_.resizing() && record.limits_in_force;
    if (changing) status.config.resources = *record.limits_in_force;
    std::vector<ContainerDisk> disks;
    for (const DiskRecord& disk : record.disks) disks.push_back(AdoptDisk(status.id, disk));
    // So that the end of the VM during this recovery cannot change what had exited before.
    pod_.AdoptContainer({.id = status.id,
                         .stop_signal = record.stop_signal,
                         .lun = record.lun,
                         .lease = lease.ok() ? *std::move(lease) : nullptr,
                         .disks = std::move(disks),
                         .output = std::move(output)},
                        status);
    if (changing) pod_.SetWantedResources(status.id, recorded);
  }

  ContainerDisk AdoptDisk(const std::string& container_id, const DiskRecord& record) {
    ContainerDisk disk{.key = record.key, .lun = record.lun, .lease = nullptr};
    const std::string image = ImageOfDisk(disk);
    if (image.empty()) return disk;
    auto lease = environment_.parts.images->Acquire(image);
    if (lease.ok()) {
      disk.lease = *std::move(lease);
    } else {
      spdlog::warn("pod={} container={} the image of a volume: {}", pod_.id(), container_id, Words(lease.status()));
    }
    return disk;
  }

  bool RemoveFromGuest(const std::string& id) {
    agent::v1::RemoveContainerRequest request;
    request.set_container_id(id);
    const Status removed = pod_.client()->RemoveContainer(context_.WithTimeout(kAgentWait), request);
    Report(removed, id);
    return removed.ok();
  }

  void Forget(const ContainerRecord& record) {
    if (record.phase == ContainerPhase::kRemoving) pod_.TellContainerRemoved(record.status.id);
    Report(environment_.store->RemoveContainer(record.status.id), record.status.id);
  }

  // The VM may have grown for a container that was half made or half removed, or a resize was under way. The start does
  // not wait for it.
  void OweResize() {
    if (pod_.resizing() || half_left_) environment_.owe_resize(pod_.id());
  }

  // Of containers that were half made or half removed.
  void DetachUnusedDisks() {
    const auto vm = pod_.vm();
    const auto attached = vm->AttachedDisks(context_);
    if (!attached.ok()) {
      spdlog::warn("pod={} ask for its disks: {}", pod_.id(), Words(attached.status()));
      return;
    }
    std::set<std::uint32_t> used;
    for (const Container& container : pod_.containers()) used.merge(LunsOf(container));
    for (const std::uint32_t lun : *attached) {
      if (used.contains(lun)) continue;
      const Status detached = vm->DetachDisk(context_, lun);
      if (!detached.ok()) spdlog::warn("pod={} detach disk {}: {}", pod_.id(), lun, Words(detached));
    }
  }

  void AwaitMissedExits() {
    const Context limited = context_.WithTimeout(kMissedExitWait);
    for (const std::string& id : missed_) pod_.WaitForExit(limited, id).IgnoreError();
  }

  void Report(const Status& status, const std::string& container_id) const {
    if (!status.ok()) spdlog::warn("pod={} container={} {}", pod_.id(), container_id, Words(status));
  }

  Environment& environment_;
  Context context_;
  Pod& pod_;
  std::vector<ContainerRecord> containers_;
  std::string guest_boot_id_;
  Status silence_;                      // why the guest is silent
  std::optional<Processes> processes_;  // absent: the guest did not say
  std::vector<std::string> missed_;     // exited while no huskd was there
  bool half_left_ = false;              // a container that was forgotten may have had memory of the VM
};

// A request for CNI that names nothing but the pod: DEL finds what it needs by that, or from its own cache.
NetworkRequest OrphanRequest(const std::string& id) {
  return {.pod_id = id, .name = "", .kubernetes_namespace = "", .uid = ""};
}

}  // namespace

LateAdoption RecoverPod(Environment& environment, const Context& context, Pod& pod, PodPhase phase,
                        const std::string& guest_boot_id, std::vector<ContainerRecord> containers, bool same_boot) {
  const auto adoption = std::make_shared<Adoption>(environment, context, pod, std::move(containers));
  switch (phase) {
    case PodPhase::kCreating:
    case PodPhase::kRemoving: {
      Status status = environment.store->SetPodPhase(pod.id(), PodPhase::kRemoving);
      if (status.ok()) status = RemovePodTraces(environment, context, pod);
      if (status.ok()) return nullptr;
      spdlog::error("pod={} remove what is left of it: {}", pod.id(), Words(status));
      adoption->KeepDead("it was being removed");
      return nullptr;
    }
    case PodPhase::kStopped:
      adoption->KeepDead("the pod was stopped");
      pod.SetStopped();
      return nullptr;
    case PodPhase::kReady: {
      if (!same_boot) {
        adoption->KeepDead("the host was rebooted");
        return nullptr;
      }
      const auto late = adoption->Begin(guest_boot_id);
      if (!late.ok()) spdlog::error("pod={} adopt it: {}", pod.id(), Words(late.status()));
      if (!late.ok() || !*late) return nullptr;
      return [adoption](const Context& later) { adoption->Late(later); };
    }
  }
  return nullptr;
}

Status RemoveOrphan(Environment& environment, const Context& context, const std::string& id) {
  const Paths& paths = environment.paths;
  HUSK_RETURN_IF_ERROR(environment.parts.hypervisor->Destroy(context, paths.vm_state(id)));
  HUSK_RETURN_IF_ERROR(environment.parts.network->Detach(context, OrphanRequest(id)));
  HUSK_RETURN_IF_ERROR(environment.parts.network->RemoveNamespace(context, id));
  HUSK_RETURN_IF_ERROR(RemoveTree(paths.vm_state(id)));
  return RemoveTree(paths.pod_root(id));
}

std::vector<std::string> RemoveOrphans(Environment& environment, const Context& context,
                                       const std::vector<PodRecord>& known) {
  std::set<std::string> candidates;
  const auto collect = [&](const StatusOr<std::vector<std::string>>& names) {
    if (!names.ok()) spdlog::warn("look for orphans: {}", Words(names.status()));
    if (names.ok()) candidates.insert(names->begin(), names->end());
  };
  collect(environment.parts.network->ExistingNamespaces());
  collect(NamesIn(environment.paths.vm_states()));
  collect(NamesIn(environment.paths.pod_roots()));
  for (const PodRecord& pod : known) candidates.erase(pod.id);
  std::vector<std::string> left;
  for (const std::string& id : candidates) {
    if (!CheckPodId(id).ok()) continue;  // nothing that Husk made
    const Status removed = RemoveOrphan(environment, context.WithTimeout(kOrphanTimeout), id);
    if (removed.ok()) spdlog::warn("pod={} was in no record: removed", id);
    if (removed.ok()) continue;
    spdlog::error("pod={} is in no record, and cannot be removed: {}", id, Words(removed));
    left.push_back(id);
  }
  return left;
}

StatusOr<std::string> ReadBootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  if (!std::getline(file, id) || id.empty()) return absl::InternalError("read /proc/sys/kernel/random/boot_id");
  return id;
}

}  // namespace husk::sandbox
