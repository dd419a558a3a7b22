#include "sandbox/pod.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "sandbox/id.h"
#include "sandbox/network/bandwidth.h"

namespace husk::sandbox {
Pod::Pod(PodRecord record, EventHub* events, Observer* observer)
    : record_(std::move(record)),
      events_(events),
      observer_(observer),
      network_(record_.network),
      resources_(record_.config.resources),
      overhead_(record_.config.overhead),
      resizing_(record_.resizing),
      limits_in_doubt_(record_.resizing),
      told_ready_(record_.phase != PodPhase::kCreating),
      told_stopped_(told_ready_ && record_.phase != PodPhase::kReady) {}

NetworkRequest Pod::network_request() const {
  const PodMetadata& metadata = config().metadata;
  return {.pod_id = id(),
          .name = metadata.name,
          .kubernetes_namespace = metadata.kubernetes_namespace,
          .uid = metadata.uid,
          .port_mappings = config().port_mappings,
          // CheckPodConfig has seen the annotations; those of an older record that it would not take limit nothing.
          .bandwidth = BandwidthOf(config().annotations).value_or(Bandwidth()),
          .dns_servers = config().dns.servers,
          .dns_searches = config().dns.searches,
          .dns_options = config().dns.options};
}

// ---- operations -----------------------------------------------------------------------------------------------------

Context Pod::Interruptible(const Context& context) const {
  return context.WithStopToken(stop_.get_token());
}

void Pod::RequestStop() {
  {
    const MutexLock lock(mutex_);
    stop_requested_ = true;
  }
  stop_.request_stop();
}

Status Pod::Explain(const Status& status) const {
  if (status.ok() || !(absl::IsCancelled(status) || absl::IsUnavailable(status))) return status;
  const MutexLock lock(mutex_);
  if (stop_requested_) return absl::AbortedError(absl::StrCat("pod ", id(), " is being stopped"));
  if (ended_) {
    return absl::UnavailableError(
        absl::StrCat("the VM of pod ", id(), " ended: ", *ended_, " (", status.message(), ")"));
  }
  return status;
}

Status Pod::CheckReady() const {
  const MutexLock lock(mutex_);
  if (removed_) return absl::NotFoundError(absl::StrCat("pod ", id(), " was removed"));
  if (stop_requested_) return absl::FailedPreconditionError(absl::StrCat("pod ", id(), " is stopped"));
  if (state_ == PodState::kReady) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("pod ", id(), " is not ready", ended_ ? ": " : "", ended_.value_or("")));
}

// ---- state ----------------------------------------------------------------------------------------------------------

PodStatus Pod::Snapshot(bool verbose) const {
  const MutexLock lock(mutex_);
  PodStatus status = SnapshotLocked();
  if (verbose) {
    if (!network_.cni_result_json.empty()) status.information["cniResult"] = network_.cni_result_json;
  }
  return status;
}

PodStatus Pod::SnapshotLocked() const {
  PodStatus status{.id = id(), .config = config(), .state = state_, .created_at = record_.created_at};
  status.config.resources = resources_;
  status.config.overhead = overhead_;
  // The pod is known by its first interface: a cluster does not reach those of further networks.
  if (!network_.interfaces.empty()) {
    for (const std::string& address : network_.interfaces.front().addresses) {
      status.addresses.push_back(address.substr(0, address.find('/')));
    }
  }
  return status;
}

void Pod::Tell(EventType type, const std::string& id) {
  if (!events_->Wanted()) return;
  Event event{.type = type, .id = id, .pod = SnapshotLocked()};
  event.containers.reserve(containers_.size());
  for (const auto& [container_id, entry] : containers_) event.containers.push_back(entry.status);
  events_->Publish(std::move(event));
}

void Pod::TellExit(const ContainerStatus& status) {
  observer_->OnContainerExit(status.reason);
  Tell(EventType::kStopped, status.id);
}

bool Pod::ready() const {
  const MutexLock lock(mutex_);
  return state_ == PodState::kReady;
}

void Pod::SetResources(LinuxResources resources, LinuxResources overhead) {
  const MutexLock lock(mutex_);
  resources_ = std::move(resources);
  overhead_ = std::move(overhead);
}

void Pod::SetNetwork(NetworkResult network) {
  const MutexLock lock(mutex_);
  network_ = std::move(network);
}

NetworkResult Pod::network() const {
  const MutexLock lock(mutex_);
  return network_;
}

Status Pod::SetReady() {
  const MutexLock lock(mutex_);
  if (ended_) return absl::UnavailableError(absl::StrCat("the VM of pod ", id(), " ended: ", *ended_));
  state_ = PodState::kReady;
  if (!std::exchange(told_ready_, true)) {
    Tell(EventType::kCreated, id());
    Tell(EventType::kStarted, id());
  }
  return absl::OkStatus();
}

void Pod::SetStopped() {
  const MutexLock lock(mutex_);
  state_ = PodState::kNotReady;
  stop_requested_ = stopped_ = true;
}

bool Pod::stop_requested() const {
  const MutexLock lock(mutex_);
  return stop_requested_;
}

bool Pod::stopped() const {
  const MutexLock lock(mutex_);
  return stopped_;
}

void Pod::SetRemoved() {
  const MutexLock lock(mutex_);
  removed_ = true;
}

bool Pod::removed() const {
  const MutexLock lock(mutex_);
  return removed_;
}

void Pod::TellRemoved() {
  const MutexLock lock(mutex_);
  if (std::exchange(told_ready_, false)) Tell(EventType::kDeleted, id());
}

std::vector<ContainerStatus> Pod::MarkEnded(const std::string& why, std::int32_t exit_code, const std::string& reason) {
  std::vector<ContainerStatus> exited;
  {
    const MutexLock lock(mutex_);
    state_ = PodState::kNotReady;
    if (!ended_) ended_ = why;
    for (auto& [id, entry] : containers_) {
      ContainerStatus& status = entry.status;
      if (status.state == ContainerState::kExited) continue;
      status.state = ContainerState::kExited;
      status.finished_at = NowNanoseconds();
      status.exit_code = exit_code;
      status.reason = reason;
      status.message = why;
      exited.push_back(status);
    }
    for (const ContainerStatus& status : exited) TellExit(status);
    if (told_ready_ && !std::exchange(told_stopped_, true)) Tell(EventType::kStopped, this->id());
    if (monitor_) monitor_->RequestStop();
    changed_.NotifyAll();
  }
  stop_.request_stop();
  return exited;
}

std::optional<std::string> Pod::ended() const {
  const MutexLock lock(mutex_);
  return ended_;
}

// ---- the VM ---------------------------------------------------------------------------------------------------------

void Pod::SetVm(PodVm vm) {
  const MutexLock lock(mutex_);
  vm_ = std::move(vm);
}

void Pod::SetVmInformation(hypervisor::VmInformation information) {
  const MutexLock lock(mutex_);
  if (vm_.vm == nullptr) return;
  size_in_doubt_ = false;
  vm_.information = std::move(information);
}

void Pod::DoubtSize() {
  const MutexLock lock(mutex_);
  size_in_doubt_ = true;
}

bool Pod::size_in_doubt() const {
  const MutexLock lock(mutex_);
  return size_in_doubt_ || !vm_.information || vm_.information->memory_bytes != vm_.information->requested_memory_bytes;
}

void Pod::SetOnlineVcpus(std::uint32_t count) {
  const MutexLock lock(mutex_);
  if (vm_.vm != nullptr) vm_.online_vcpus = count;
}

std::optional<hypervisor::VmInformation> Pod::vm_information() const {
  const MutexLock lock(mutex_);
  return vm_.information;
}

std::uint32_t Pod::online_vcpus() const {
  const MutexLock lock(mutex_);
  return vm_.online_vcpus;
}

void Pod::SetResizing(bool resizing) {
  const MutexLock lock(mutex_);
  resizing_ = resizing;
}

bool Pod::resizing() const {
  const MutexLock lock(mutex_);
  return resizing_;
}

void Pod::SetMemoryDemand(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  memory_demand_ = bytes;
}

std::uint64_t Pod::memory_demand() const {
  const MutexLock lock(mutex_);
  return memory_demand_;
}

void Pod::SetMarkedMemory(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  marked_memory_ = bytes;
}

std::uint64_t Pod::marked_memory() const {
  const MutexLock lock(mutex_);
  return marked_memory_;
}

void Pod::SetLimitsInDoubt(bool in_doubt) {
  const MutexLock lock(mutex_);
  limits_in_doubt_ = in_doubt;
}

bool Pod::limits_in_doubt() const {
  const MutexLock lock(mutex_);
  return limits_in_doubt_;
}

std::shared_ptr<hypervisor::Vm> Pod::vm() const {
  const MutexLock lock(mutex_);
  return vm_.vm;
}

std::uint64_t Pod::vm_memory_bytes() const {
  const MutexLock lock(mutex_);
  return vm_.information ? vm_.information->memory_bytes : 0;
}

std::shared_ptr<agent::AgentClient> Pod::client() const {
  const MutexLock lock(mutex_);
  return vm_.client;
}

std::shared_ptr<PodVolumes> Pod::volumes() const {
  const MutexLock lock(mutex_);
  return vm_.volumes;
}

void Pod::StartMonitor(MonitorHandlers handlers) {
  auto monitor = std::make_shared<PodMonitor>(id(), client(), std::move(handlers));
  const MutexLock lock(mutex_);
  if (!ended_) monitor_ = std::move(monitor);
}

void Pod::Watch(const std::string& container_id) {
  const MutexLock lock(mutex_);
  const auto found = containers_.find(container_id);
  if (monitor_ && found != containers_.end()) monitor_->Watch(container_id, found->second.container.output);
}

void Pod::LetGo() {
  std::shared_ptr<PodMonitor> monitor;
  PodVm vm;
  {
    const MutexLock lock(mutex_);
    monitor = std::move(monitor_);
    vm = std::exchange(vm_, {});
  }
  // Without the mutex: the monitor's last handlers want it.
  if (monitor) monitor->Stop();
  if (vm.client) vm.client->Close();
  meter_.Stop();
  if (vm.volumes) vm.volumes->Stop();
}

// ---- containers -----------------------------------------------------------------------------------------------------

void Pod::AddContainer(Container container, ContainerStatus status) {
  const MutexLock lock(mutex_);
  Insert(std::move(container), std::move(status), /*adopted=*/false);
}

void Pod::AdoptContainer(Container container, ContainerStatus status) {
  const MutexLock lock(mutex_);
  Insert(std::move(container), std::move(status), /*adopted=*/true);
}

void Pod::Insert(Container container, ContainerStatus status, bool adopted) {
  const std::string id = container.id;
  // Made in a VM that has ended since: nobody would mark it later.
  const bool lost = ended_ && status.state != ContainerState::kExited;
  if (lost) {
    status.state = ContainerState::kExited;
    status.finished_at = NowNanoseconds();
    status.exit_code = 255;
    status.reason = "Unknown";
    status.message = *ended_;
  }
  containers_[id] = {.container = std::move(container), .status = std::move(status)};
  if (!adopted) Tell(EventType::kCreated, id);
  if (lost) TellExit(containers_[id].status);
}

void Pod::TellContainerRemoved(const std::string& id) {
  const MutexLock lock(mutex_);
  Tell(EventType::kDeleted, id);
}

void Pod::DropContainer(const std::string& id) {
  Entry dropped;  // its lease and its log are let go without the mutex
  const MutexLock lock(mutex_);
  if (monitor_) monitor_->Forget(id);
  const auto found = containers_.find(id);
  if (found == containers_.end()) return;
  dropped = std::move(found->second);
  containers_.erase(found);
  Tell(EventType::kDeleted, id);
  changed_.NotifyAll();
}

std::vector<std::string> Pod::ContainerIds(const std::string& prefix) const {
  const MutexLock lock(mutex_);
  std::vector<std::string> ids;
  for (auto entry = containers_.lower_bound(prefix);
       entry != containers_.end() && absl::StartsWith(entry->first, prefix); ++entry) {
    ids.push_back(entry->first);
  }
  return ids;
}

std::optional<Container> Pod::container(const std::string& id) const {
  const MutexLock lock(mutex_);
  const auto found = containers_.find(id);
  return found == containers_.end() ? std::nullopt : std::optional(found->second.container);
}

std::optional<ContainerStatus> Pod::container_status(const std::string& id) const {
  const MutexLock lock(mutex_);
  const auto found = containers_.find(id);
  return found == containers_.end() ? std::nullopt : std::optional(found->second.status);
}

std::vector<ContainerStatus> Pod::ContainerSnapshots() const {
  const MutexLock lock(mutex_);
  std::vector<ContainerStatus> snapshots;
  snapshots.reserve(containers_.size());
  for (const auto& [id, entry] : containers_) snapshots.push_back(entry.status);
  return snapshots;
}

std::vector<Container> Pod::containers() const {
  const MutexLock lock(mutex_);
  std::vector<Container> list;
  list.reserve(containers_.size());
  for (const auto& [id, entry] : containers_) list.push_back(entry.container);
  return list;
}

bool Pod::SetRunning(const std::string& id, std::int64_t started_at, std::uint32_t guest_pid) {
  const MutexLock lock(mutex_);
  const auto found = containers_.find(id);
  if (found == containers_.end() || found->second.status.state != ContainerState::kCreated) return false;
  found->second.status.state = ContainerState::kRunning;
  found->second.status.started_at = started_at;
  found->second.status.guest_pid = guest_pid;
  Tell(EventType::kStarted, id);
  changed_.NotifyAll();
  return true;
}

void Pod::SetContainerResources(const std::string& id, LinuxResources resources) {
  const MutexLock lock(mutex_);
  const auto found = containers_.find(id);
  if (found == containers_.end()) return;
  found->second.status.config.resources = std::move(resources);
  found->second.wanted.reset();
}

void Pod::SetWantedResources(const std::string& id, LinuxResources resources) {
  const MutexLock lock(mutex_);
  const auto found = containers_.find(id);
  if (found != containers_.end()) found->second.wanted = std::move(resources);
}

std::optional<LinuxResources> Pod::wanted_resources(const std::string& id) const {
  const MutexLock lock(mutex_);
  const auto found = containers_.find(id);
  return found == containers_.end() ? std::nullopt : found->second.wanted;
}

bool Pod::SetExited(const std::string& id, std::int64_t finished_at, std::int32_t exit_code, const std::string& reason,
                    const std::string& message, const std::function<void(const ContainerStatus&)>& record) {
  std::optional<ContainerStatus> status = container_status(id);
  if (!status || status->state == ContainerState::kExited) return false;
  status->state = ContainerState::kExited;
  status->finished_at = finished_at;
  status->exit_code = exit_code;
  status->reason = reason;
  status->message = message;
  record(*status);
  const MutexLock lock(mutex_);
  const auto found = containers_.find(id);
  // The end of the VM was first: what it said stays.
  if (found == containers_.end() || found->second.status.state == ContainerState::kExited) return false;
  found->second.status = *std::move(status);
  TellExit(found->second.status);
  changed_.NotifyAll();
  return true;
}

bool Pod::TakeStopSignal(const std::string& id) {
  const MutexLock lock(mutex_);
  const auto found = containers_.find(id);
  return found != containers_.end() && !std::exchange(found->second.stop_signalled, true);
}

void Pod::SetAdopting(bool adopting) {
  const MutexLock lock(mutex_);
  adopting_ = adopting;
  changed_.NotifyAll();
}

Status Pod::AwaitAdopted(const Context& context) {
  return Annotate(WaitFor(context, mutex_, changed_, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !adopting_; }),
                  "wait for the guest's first answer to this huskd");
}

Status Pod::WaitForExit(const Context& context, const std::string& id) {
  return WaitFor(context, mutex_, changed_, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const auto found = containers_.find(id);
    return found == containers_.end() || found->second.status.state == ContainerState::kExited;
  });
}

}  // namespace husk::sandbox
