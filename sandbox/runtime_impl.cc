#include "sandbox/runtime_impl.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "sandbox/collect_stats.h"
#include "sandbox/container_operations.h"
#include "sandbox/id.h"
#include "sandbox/information.h"
#include "sandbox/logging.h"
#include "sandbox/mute_guest.h"
#include "sandbox/pod_operations.h"
#include "sandbox/port_forward.h"
#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

bool HasLabels(const StringMap& labels, const StringMap& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& entry) {
    const auto found = labels.find(entry.first);
    return found != labels.end() && found->second == entry.second;
  });
}

}  // namespace

RuntimeImpl::RuntimeImpl(Environment environment)
    : environment_(std::move(environment)),
      memory_news_([this](const Context& context, const std::string& pod_id, const MemoryNews& news) {
        FollowDemand(context, pod_id, news);
      }),
      vm_ends_thread_([this] { WatchVmEnds(); }) {
  environment_.tell_memory = [this](const std::string& pod_id, const MemoryNews& news) {
    memory_news_.Tell(pod_id, news);
  };
  environment_.owe_resize = [this](const std::string& pod_id) { OweResize(pod_id); };
  environment_.tell_size = [this](const std::string& pod_id) { OweLook(pod_id); };
}

RuntimeImpl::~RuntimeImpl() {
  Detach();
}

// ---- calls ----------------------------------------------------------------------------------------------------------

RuntimeImpl::Call::Call(RuntimeImpl& runtime, const Context& context)
    : runtime_(runtime), context_(context.WithStopToken(runtime.detaching_.get_token())) {
  const MutexLock lock(runtime_.calls_mutex_);
  if (runtime_.detached_) {
    status_ = absl::UnavailableError("huskd is stopping");
    return;
  }
  ++runtime_.calls_;
  counted_ = true;
}

RuntimeImpl::Call::~Call() {
  if (!counted_) return;
  const MutexLock lock(runtime_.calls_mutex_);
  --runtime_.calls_;
  runtime_.calls_changed_.NotifyAll();
}

void RuntimeImpl::Detach() {
  detaching_.request_stop();
  {
    const MutexLock lock(calls_mutex_);
    detached_ = true;
    // Operations that are cut short undo what they did, each step within its own time limit.
    while (calls_ > 0) calls_changed_.Wait(calls_mutex_);
  }
  owed_.Stop();
  owed_resizes_.Stop();
  memory_news_.Stop();
  std::vector<std::thread> adoptions;
  {
    const MutexLock lock(adoptions_mutex_);
    adoptions.swap(adoptions_);
  }
  for (std::thread& adoption : adoptions) adoption.join();
  environment_.vm_ends->Close();
  if (vm_ends_thread_.joinable()) vm_ends_thread_.join();
  for (const auto& pod : AllPods()) pod->LetGo();
}

// ---- the table ------------------------------------------------------------------------------------------------------

StatusOr<std::shared_ptr<Pod>> RuntimeImpl::FindPod(const std::string& id) {
  Status unknown = absl::NotFoundError(absl::StrCat("there is no pod \"", id, "\""));
  if (id.empty()) return unknown;
  const MutexLock lock(pods_mutex_);
  const auto found = pods_.lower_bound(id);
  if (found == pods_.end() || !absl::StartsWith(found->first, id)) return unknown;
  const auto next = std::next(found);
  if (found->first != id && next != pods_.end() && absl::StartsWith(next->first, id)) {
    return absl::InvalidArgumentError(absl::StrCat("several pods' ids begin with \"", id, "\""));
  }
  return found->second;
}

StatusOr<RuntimeImpl::Located> RuntimeImpl::FindContainer(const std::string& id) {
  std::optional<Located> found;
  if (!id.empty()) {
    for (const auto& pod : AllPods()) {
      for (const std::string& candidate : pod->ContainerIds(id)) {
        if (candidate == id) return Located{.pod = pod, .container_id = candidate};
        if (found) return absl::InvalidArgumentError(absl::StrCat("several containers' ids begin with \"", id, "\""));
        found = Located{.pod = pod, .container_id = candidate};
      }
    }
  }
  if (!found) return absl::NotFoundError(absl::StrCat("there is no container \"", id, "\""));
  return *std::move(found);
}

std::vector<std::shared_ptr<Pod>> RuntimeImpl::AllPods() {
  const MutexLock lock(pods_mutex_);
  std::vector<std::shared_ptr<Pod>> pods;
  pods.reserve(pods_.size());
  for (const auto& [id, pod] : pods_) pods.push_back(pod);
  return pods;
}

void RuntimeImpl::AddPod(const std::shared_ptr<Pod>& pod) {
  const MutexLock lock(pods_mutex_);
  pods_[pod->id()] = pod;
}

void RuntimeImpl::DropPodIfRemoved(Pod& pod) {
  if (!pod.removed()) return;
  {
    const MutexLock lock(pods_mutex_);
    pods_.erase(pod.id());
  }
  pod.TellRemoved();
}

void RuntimeImpl::WatchVmEnds() {
  while (const auto end = environment_.vm_ends->Next()) {
    const auto pod = FindPod(end->pod_id);
    if (pod.ok()) PodVmEnded(environment_, **pod, end->reason);
  }
}

// ---- pods -----------------------------------------------------------------------------------------------------------

RuntimeImpl::PodKey RuntimeImpl::KeyOf(const PodConfig& config) {
  const PodMetadata& metadata = config.metadata;
  return {metadata.name, metadata.kubernetes_namespace, metadata.uid, metadata.attempt};
}

RuntimeImpl::Entry RuntimeImpl::EnterRun(const PodKey& key) {
  const MutexLock lock(runs_mutex_);
  if (const auto found = runs_.find(key); found != runs_.end()) return {.run = found->second};
  for (const auto& pod : AllPods()) {
    if (KeyOf(pod->config()) == key && pod->CheckReady().ok()) return {.ready_id = pod->id()};
  }
  return {.run = runs_[key] = std::make_shared<Run>(), .owner = true};
}

void RuntimeImpl::EndRun(const PodKey& key, const std::shared_ptr<Run>& run, StatusOr<std::string> result) {
  const MutexLock lock(runs_mutex_);
  run->result = std::move(result);
  runs_.erase(key);
  runs_changed_.NotifyAll();
}

StatusOr<std::string> RuntimeImpl::RunPod(const Context& context, const PodConfig& config) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_RETURN_IF_ERROR(CheckPodConfig(config));
  const PodKey key = KeyOf(config);
  for (;;) {
    HUSK_RETURN_IF_ERROR(call.context().Check());
    const Entry entry = EnterRun(key);
    if (entry.ready_id) return *entry.ready_id;
    if (entry.owner) {
      StatusOr<std::string> result = RunNewPod(call.context(), config);
      EndRun(key, entry.run, result);
      return result;
    }
    std::optional<StatusOr<std::string>> result;
    HUSK_RETURN_IF_ERROR_DOING(WaitFor(call.context(), runs_mutex_, runs_changed_,
                                       [&] {
                                         result = entry.run->result;
                                         return result.has_value();
                                       }),
                               "wait for the same pod's start, which is under way");
    // What ended only the other call, its deadline, is no answer to this one: everything is undone, so begin anew.
    if (!absl::IsCancelled(result->status()) && !absl::IsDeadlineExceeded(result->status())) return *std::move(result);
  }
}

StatusOr<std::string> RuntimeImpl::RunNewPod(const Context& context, const PodConfig& config) {
  PodRecord record{.id = NewId(), .config = config, .created_at = NowNanoseconds()};
  HUSK_ASSIGN_OR_RETURN(record.user, environment_.store->AddPod(record, environment_.options.first_user,
                                                                environment_.options.user_count));
  std::string id = record.id;
  const auto pod = std::make_shared<Pod>(std::move(record), environment_.parts.events, environment_.parts.observer);
  HUSK_ASSIGN_OR_RETURN(const TurnLock::Turn turn, pod->turns().Take(context.Detached(std::chrono::seconds(1))));
  AddPod(pod);
  const auto begin = Context::Clock::now();
  Status made = MakePod(environment_, context, *pod);
  DropPodIfRemoved(*pod);
  if (!made.ok()) {
    if (!pod->removed()) OweRemoval(pod);
    spdlog::warn("pod={} {}/{}: {}", id, config.metadata.kubernetes_namespace, config.metadata.name, Words(made));
    return made;
  }
  const auto took = Context::Clock::now() - begin;
  environment_.parts.observer->OnPodReady(took);
  spdlog::info("pod={} {}/{} is ready after {} ms", id, config.metadata.kubernetes_namespace, config.metadata.name,
               std::chrono::duration_cast<std::chrono::milliseconds>(took).count());
  return id;
}

Status RuntimeImpl::EndPod(const Context& context, const std::string& id, EndStep end, OweEnd owe) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  const auto pod = FindPod(id);
  if (absl::IsNotFound(pod.status())) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(pod.status());
  (*pod)->RequestStop();
  TakeOver(**pod);
  HUSK_ASSIGN_OR_RETURN(const TurnLock::Turn turn, (*pod)->turns().Take(call.context()));
  if ((*pod)->removed()) return absl::OkStatus();
  Status ended = end(environment_, call.context(), **pod);
  DropPodIfRemoved(**pod);
  if (!ended.ok()) (this->*owe)(*pod);
  return ended;
}

Status RuntimeImpl::StopPod(const Context& context, const std::string& id) {
  return EndPod(context, id, StopPodVm, &RuntimeImpl::OweStop);
}

Status RuntimeImpl::RemovePod(const Context& context, const std::string& id) {
  return EndPod(context, id, RemovePodTraces, &RuntimeImpl::OweRemoval);
}

StatusOr<PodStatus> RuntimeImpl::GetPod(const std::string& id, bool verbose) {
  HUSK_ASSIGN_OR_RETURN(const auto pod, FindPod(id));
  PodStatus status = pod->Snapshot(false);
  if (verbose) status.information = PodInformation(environment_, *pod);
  return status;
}

Status RuntimeImpl::UpdatePodResources(const Context& context, const std::string& id, const LinuxResources& resources,
                                       const LinuxResources& overhead) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_ASSIGN_OR_RETURN(const auto pod, FindPod(id));
  HUSK_ASSIGN_OR_RETURN(const TurnLock::Turn turn, pod->turns().Take(pod->Interruptible(call.context())));
  HUSK_RETURN_IF_ERROR(pod->CheckReady());
  return pod->Explain(UpdatePodLimits(environment_, pod->Interruptible(call.context()), *pod, resources, overhead));
}

std::vector<PodStatus> RuntimeImpl::ListPods(const PodFilter& filter) {
  std::vector<PodStatus> list;
  for (const auto& pod : AllPods()) {
    if (!absl::StartsWith(pod->id(), filter.id) || !HasLabels(pod->config().labels, filter.labels)) continue;
    PodStatus status = pod->Snapshot(false);
    if (!filter.state || status.state == *filter.state) list.push_back(std::move(status));
  }
  return list;
}

// ---- containers -----------------------------------------------------------------------------------------------------

StatusOr<std::string> RuntimeImpl::CreateContainer(const Context& context, const std::string& pod_id,
                                                   const ContainerConfig& config) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_ASSIGN_OR_RETURN(const auto pod, FindPod(pod_id));
  const Context interruptible = pod->Interruptible(call.context());
  auto turn = pod->turns().Take(interruptible);
  if (!turn.ok()) return pod->Explain(turn.status());
  HUSK_RETURN_IF_ERROR(pod->CheckReady());
  for (const ContainerStatus& existing : pod->ContainerSnapshots()) {
    const ContainerMetadata& metadata = existing.config.metadata;
    if (metadata.name == config.metadata.name && metadata.attempt == config.metadata.attempt) return existing.id;
  }
  auto made = MakeContainer(environment_, interruptible, *pod, config);
  if (!made.ok()) return pod->Explain(made.status());
  return made;
}

Status RuntimeImpl::StartContainer(const Context& context, const std::string& id) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_ASSIGN_OR_RETURN(const Located located, FindContainer(id));
  Pod& pod = *located.pod;
  const Context interruptible = pod.Interruptible(call.context());
  auto turn = pod.turns().Take(interruptible);
  if (!turn.ok()) return pod.Explain(turn.status());
  HUSK_RETURN_IF_ERROR(pod.CheckReady());
  return pod.Explain(StartContainerInPod(environment_, interruptible, pod, located.container_id));
}

Status RuntimeImpl::StopContainer(const Context& context, const std::string& id, std::chrono::nanoseconds grace) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  const auto located = FindContainer(id);
  if (absl::IsNotFound(located.status())) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(located.status());
  const auto asked_at = Context::Clock::now();
  Status stopped = StopContainerInPod(call.context(), *located->pod, located->container_id, grace);
  if (absl::IsDeadlineExceeded(stopped) &&
      EndVmOfMuteGuest(environment_, call.context(), *located->pod, located->container_id, asked_at)) {
    return absl::OkStatus();
  }
  return stopped;
}

Status RuntimeImpl::RemoveContainer(const Context& context, const std::string& id) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  const auto located = FindContainer(id);
  if (absl::IsNotFound(located.status())) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(located.status());
  Pod& pod = *located->pod;
  HUSK_ASSIGN_OR_RETURN(const TurnLock::Turn turn, pod.turns().Take(call.context()));
  return RemoveContainerFromPod(environment_, call.context(), pod, located->container_id);
}

Status RuntimeImpl::UpdateContainerResources(const Context& context, const std::string& id,
                                             const LinuxResources& change) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_ASSIGN_OR_RETURN(const Located located, FindContainer(id));
  Pod& pod = *located.pod;
  const Context interruptible = pod.Interruptible(call.context());
  const auto turn = pod.turns().Take(interruptible);
  if (!turn.ok()) return pod.Explain(turn.status());
  return pod.Explain(UpdateContainerInPod(environment_, interruptible, pod, located.container_id, change));
}

StatusOr<ContainerStatus> RuntimeImpl::GetContainer(const std::string& id, bool verbose) {
  HUSK_ASSIGN_OR_RETURN(const Located located, FindContainer(id));
  auto status = located.pod->container_status(located.container_id);
  if (!status) return absl::NotFoundError(absl::StrCat("there is no container \"", id, "\""));
  if (verbose) status->information = ContainerInformation(*located.pod, *status);
  return *std::move(status);
}

std::vector<ContainerStatus> RuntimeImpl::ListContainers(const ContainerFilter& filter) {
  std::vector<ContainerStatus> list;
  for (const auto& pod : AllPods()) {
    if (!absl::StartsWith(pod->id(), filter.pod_id)) continue;
    for (ContainerStatus& status : pod->ContainerSnapshots()) {
      if (!absl::StartsWith(status.id, filter.id) || !HasLabels(status.config.labels, filter.labels)) continue;
      if (!filter.state || status.state == *filter.state) list.push_back(std::move(status));
    }
  }
  return list;
}

// ---- statistics -----------------------------------------------------------------------------------------------------

StatusOr<PodStats> RuntimeImpl::GetPodStats(const Context& context, const std::string& id) {
  HUSK_ASSIGN_OR_RETURN(const auto pod, FindPod(id));
  RefreshStats(environment_, context, {pod});
  return LastPodStats(environment_, *pod);
}

std::vector<PodStats> RuntimeImpl::ListPodStats(const Context& context, const PodFilter& filter) {
  std::vector<std::shared_ptr<Pod>> pods;
  for (const auto& pod : AllPods()) {
    if (!absl::StartsWith(pod->id(), filter.id) || !HasLabels(pod->config().labels, filter.labels)) continue;
    if (pod->ready()) pods.push_back(pod);
  }
  RefreshStats(environment_, context, pods);
  std::vector<PodStats> list;
  list.reserve(pods.size());
  for (const auto& pod : pods) list.push_back(LastPodStats(environment_, *pod));
  return list;
}

StatusOr<ContainerStats> RuntimeImpl::GetContainerStats(const Context& context, const std::string& id) {
  HUSK_ASSIGN_OR_RETURN(const Located located, FindContainer(id));
  RefreshStats(environment_, context, {located.pod});
  const auto status = located.pod->container_status(located.container_id);
  if (!status) return absl::NotFoundError(absl::StrCat("there is no container \"", id, "\""));
  return LastContainerStats(*located.pod, *status);
}

std::vector<ContainerStats> RuntimeImpl::ListContainerStats(const Context& context, const ContainerFilter& filter) {
  const auto wanted = [&filter](const ContainerStatus& status) {
    return status.state == ContainerState::kRunning && absl::StartsWith(status.id, filter.id) &&
           HasLabels(status.config.labels, filter.labels);
  };
  std::vector<std::shared_ptr<Pod>> pods;
  for (const auto& pod : AllPods()) {
    if (!absl::StartsWith(pod->id(), filter.pod_id)) continue;
    const auto containers = pod->ContainerSnapshots();
    if (std::any_of(containers.begin(), containers.end(), wanted)) pods.push_back(pod);
  }
  RefreshStats(environment_, context, pods);
  std::vector<ContainerStats> list;
  for (const auto& pod : pods) {
    for (const ContainerStatus& status : pod->ContainerSnapshots()) {
      if (wanted(status)) list.push_back(LastContainerStats(*pod, status));
    }
  }
  return list;
}

std::vector<VmFigures> RuntimeImpl::ListVms() {
  std::vector<VmFigures> list;
  for (const auto& pod : AllPods()) {
    if (const auto vm = VmFiguresOf(environment_, *pod)) list.push_back(*vm);
  }
  return list;
}

// ---- processes ------------------------------------------------------------------------------------------------------

StatusOr<ExecResult> RuntimeImpl::ExecSync(const Context& context, const std::string& id,
                                           const std::vector<std::string>& command, std::chrono::nanoseconds timeout) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_ASSIGN_OR_RETURN(const Located located, FindContainer(id));
  Pod& pod = *located.pod;
  const Context interruptible = pod.Interruptible(call.context());
  if (const Status adopted = pod.AwaitAdopted(interruptible); !adopted.ok()) return pod.Explain(adopted);
  auto result = ExecInContainer(interruptible, pod, located.container_id, command, timeout);
  if (!result.ok()) return pod.Explain(result.status());
  return result;
}

StatusOr<std::int32_t> RuntimeImpl::Exec(const Context& context, const std::string& id, const ExecOptions& options,
                                         ClientStreams& streams) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_ASSIGN_OR_RETURN(const Located located, FindContainer(id));
  Pod& pod = *located.pod;
  const Context interruptible = pod.Interruptible(call.context());
  if (const Status adopted = pod.AwaitAdopted(interruptible); !adopted.ok()) return pod.Explain(adopted);
  auto result = ExecWithClient(interruptible, pod, located.container_id, options, streams);
  if (!result.ok()) return pod.Explain(result.status());
  return result;
}

Status RuntimeImpl::Attach(const Context& context, const std::string& id, const AttachOptions& options,
                           ClientStreams& streams) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_ASSIGN_OR_RETURN(const Located located, FindContainer(id));
  Pod& pod = *located.pod;
  return pod.Explain(AttachClient(pod.Interruptible(call.context()), pod, located.container_id, options, streams));
}

Status RuntimeImpl::PortForward(const Context& context, const std::string& id, PortExchange& exchange) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_ASSIGN_OR_RETURN(const auto pod, FindPod(id));
  HUSK_RETURN_IF_ERROR(pod->CheckReady());
  const Context interruptible = pod->Interruptible(call.context());
  if (const Status adopted = pod->AwaitAdopted(interruptible); !adopted.ok()) return pod->Explain(adopted);
  return pod->Explain(ForwardPorts(interruptible, *pod, exchange));
}

Status RuntimeImpl::ReopenContainerLog(const Context& context, const std::string& id) {
  const Call call(*this, context);
  HUSK_RETURN_IF_ERROR(call.status());
  HUSK_ASSIGN_OR_RETURN(const Located located, FindContainer(id));
  const auto status = located.pod->container_status(located.container_id);
  const auto container = located.pod->container(located.container_id);
  if (!status || !container || status->state != ContainerState::kRunning || container->output == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("container ", located.container_id, " does not run"));
  }
  HUSK_RETURN_IF_ERROR_DOING(container->output->Reopen(),
                             absl::StrCat("reopen the log of container ", located.container_id));
  const Status saved = environment_.store->SetLogCheckpoint(located.container_id, container->output->checkpoint());
  if (!saved.ok()) spdlog::warn("container={} {}", located.container_id, Words(saved));
  return absl::OkStatus();
}

// ---- making one -----------------------------------------------------------------------------------------------------

StatusOr<std::unique_ptr<Runtime>> NewRuntime(const RuntimeOptions& options, const RuntimeParts& parts) {
  if (parts.hypervisor == nullptr || parts.agents == nullptr || parts.images == nullptr || parts.network == nullptr) {
    return absl::InvalidArgumentError("the runtime needs a hypervisor, agents, images and a network");
  }
  if (options.first_user == 0 || options.user_count == 0) {
    return absl::InvalidArgumentError("VMs must not run as root: first_user and user_count must not be 0");
  }
  Environment environment;
  HUSK_ASSIGN_OR_RETURN(environment.options, WithHostLimits(options));
  environment.paths = {.root = options.root_directory, .state = options.state_directory};
  environment.parts = parts;
  if (parts.cgroups == nullptr) {
    environment.own_cgroups = NewHostCgroups(options.cgroup_root);
    environment.parts.cgroups = environment.own_cgroups.get();
  }
  if (parts.events == nullptr) {
    environment.own_events = std::make_unique<EventHub>();
    environment.parts.events = environment.own_events.get();
  }
  if (parts.observer == nullptr) {
    environment.own_observer = std::make_unique<Observer>();
    environment.parts.observer = environment.own_observer.get();
  }
  HUSK_RETURN_IF_ERROR(MakePrivateDirectory(environment.paths.pod_roots()));
  HUSK_RETURN_IF_ERROR(MakePrivateDirectory(environment.paths.vm_states()));
  environment.scratch_disks = std::make_unique<ScratchDisks>(environment.paths.scratch_templates());
  HUSK_ASSIGN_OR_RETURN(environment.store, Store::Open(environment.paths.store()));
  environment.vm_ends = std::make_shared<VmEnds>();
  const std::uint32_t boots = options.concurrent_boots;
  environment.boots = std::make_unique<Places>(boots > 0 ? boots : std::thread::hardware_concurrency() + 1);
  return std::make_unique<RuntimeImpl>(std::move(environment));
}

}  // namespace husk::sandbox
