#include "sandbox/resize.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "agent/common/fault_point.h"
#include "sandbox/logging.h"
#include "sandbox/oci/oci_config.h"
#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

using hypervisor::VmInformation;

constexpr auto kInformationWait = std::chrono::seconds(5);
// The agent itself waits up to 20 seconds for vCPUs that come.
constexpr auto kGuestWait = std::chrono::seconds(30);
// Another request than the one before is what has a guest try again that could not give back enough.
constexpr std::uint64_t kPoke = std::uint64_t{4} << 20;

// One resize of one pod.
class Resize {
 public:
  Resize(Environment& environment, const Context& context, Pod& pod, const PodNeeds& needs)
      : environment_(environment),
        context_(context),
        pod_(pod),
        needs_(needs),
        wanted_(SizeWanted(OptionsFor(environment.options, pod.config().vm_choices), needs)),
        can_demand_(CanDemandMore(OptionsFor(environment.options, pod.config().vm_choices), needs)),
        vm_(pod.vm()),
        client_(pod.client()) {}

  Status Grow() {
    HUSK_RETURN_IF_ERROR(Look());
    const std::uint64_t plugged = std::max(WantedPlugged(), RequestedPlugged());
    const bool more_memory = plugged > RequestedPlugged();
    const bool more_vcpus = wanted_.vcpus > pod_.online_vcpus();
    if (!more_memory && !more_vcpus) {
      Mark();
      return absl::OkStatus();
    }
    began_ = true;
    const bool alone = !pod_.resizing();
    HUSK_RETURN_IF_ERROR(RecordResize(environment_, pod_));
    LimitHost(std::max(information_.boot_memory_bytes + plugged, information_.memory_bytes));
    FaultPoint("resize.host_raised");
    pod_.DoubtSize();
    if (more_memory) HUSK_RETURN_IF_ERROR(Plug(plugged));
    if (more_vcpus) HUSK_RETURN_IF_ERROR(AddVcpus());
    HUSK_RETURN_IF_ERROR(Ask());
    Mark();
    return alone ? Settle() : absl::OkStatus();
  }

  Status Fit() {
    Status status = Look();
    if (status.ok()) status = IsAsWanted() ? LimitAsItIs() : Shrink();
    if (status.ok()) Mark();
    if (status.ok()) status = Settle();
    if (!status.ok()) environment_.owe_resize(pod_.id());
    return status;
  }

  // Whether Grow or Fit found something to do.
  [[nodiscard]] bool began() const { return began_; }

 private:
  Status LimitAsItIs() {
    LimitHost(information_.memory_bytes);
    return absl::OkStatus();
  }

  Status Shrink() {
    began_ = RequestedPlugged() != WantedPlugged() || pod_.online_vcpus() != wanted_.vcpus || !Remainder().ok();
    HUSK_RETURN_IF_ERROR(RecordResize(environment_, pod_));
    pod_.DoubtSize();
    Status status = TakeVcpus();
    status.Update(Unplug());
    status.Update(Ask());
    LimitHost(information_.memory_bytes);
    FaultPoint("resize.host_lowered");
    return status.ok() ? Remainder() : status;
  }

  // What is known, or asked for.
  Status Look() {
    if (vm_ == nullptr || client_ == nullptr) return absl::FailedPreconditionError("the pod has no VM");
    if (pod_.size_in_doubt()) return Ask();
    information_ = pod_.vm_information().value_or(VmInformation());
    KeepToTheVm();
    return absl::OkStatus();
  }

  Status Ask() {
    HUSK_ASSIGN_OR_RETURN_DOING(information_, vm_->Information(context_.WithTimeout(kInformationWait)),
                                "ask for the VM's size");
    pod_.SetVmInformation(information_);
    KeepToTheVm();
    return absl::OkStatus();
  }

  // It was started with the maxima of another configuration, perhaps.
  void KeepToTheVm() { wanted_.vcpus = std::min(wanted_.vcpus, std::max(information_.maximum_vcpus, 1U)); }

  [[nodiscard]] std::uint64_t WantedPlugged() const {
    return PluggedFor(wanted_, information_.boot_memory_bytes, information_.maximum_memory_bytes);
  }
  [[nodiscard]] std::uint64_t RequestedPlugged() const {
    return information_.requested_memory_bytes -
           std::min(information_.requested_memory_bytes, information_.boot_memory_bytes);
  }
  [[nodiscard]] std::uint64_t WantedMemory() const { return information_.boot_memory_bytes + WantedPlugged(); }

  [[nodiscard]] bool IsAsWanted() const {
    return information_.requested_memory_bytes == WantedMemory() && information_.memory_bytes == WantedMemory() &&
           pod_.online_vcpus() == wanted_.vcpus && VcpusToTake() == 0;
  }
  // Those above the wanted ones, where they do not stay.
  [[nodiscard]] std::uint32_t VcpusToTake() const {
    return information_.vcpus_stay ? 0 : information_.vcpus - std::min(information_.vcpus, wanted_.vcpus);
  }

  Status ResizeGuest(std::uint32_t vcpus, bool unmovable, std::uint64_t leaving_bytes = 0) {
    agent::v1::ResizeGuestRequest request;
    request.set_cpus(vcpus);
    request.set_unmovable_memory(unmovable);
    request.set_memory_can_grow(can_demand_);
    request.set_leaving_memory_bytes(leaving_bytes);
    pod_.SetMarkedMemory(0);
    HUSK_ASSIGN_OR_RETURN_DOING(const auto response, client_->ResizeGuest(context_.WithTimeout(kGuestWait), request),
                                absl::StrCat("have the guest use ", vcpus, " vCPUs"));
    if (can_demand_ && leaving_bytes == 0) pod_.SetMarkedMemory(information_.memory_bytes);
    if (response.online_cpus() == vcpus) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("of ", vcpus, " vCPUs the guest says that it uses ", response.online_cpus()));
  }

  // What the guest uses now, as far as is known.
  [[nodiscard]] std::uint32_t Online() const {
    const std::uint32_t online = pod_.online_vcpus();
    return online > 0 ? online : std::max(std::uint32_t{1}, std::min(wanted_.vcpus, information_.vcpus));
  }

  // Tells the guest whether containers that come to the end of its memory shall wait for more, and where that is. One
  // that does not take it has no memory on demand, and nothing else is wrong with it.
  void Mark() {
    const std::uint64_t marked = can_demand_ ? information_.memory_bytes : 0;
    if (marked == pod_.marked_memory()) return;
    const Status told = ResizeGuest(Online(), false);
    if (!told.ok()) spdlog::warn("pod={} {}", pod_.id(), Words(told));
  }

  Status Plug(std::uint64_t bytes) {
    // The choice is made as memory comes, and is the guest's until it is told otherwise.
    if (wanted_.unmovable) HUSK_RETURN_IF_ERROR(ResizeGuest(Online(), true));
    Status plugged = vm_->SetPluggedMemory(context_, bytes);
    FaultPoint("resize.memory_plugged");
    if (wanted_.unmovable) plugged.Update(ResizeGuest(Online(), false));
    return plugged;
  }

  Status AddVcpus() {
    if (information_.vcpus < wanted_.vcpus) HUSK_RETURN_IF_ERROR(vm_->SetVcpus(context_, wanted_.vcpus));
    FaultPoint("resize.vcpus_plugged");
    pod_.SetOnlineVcpus(0);
    HUSK_RETURN_IF_ERROR(ResizeGuest(wanted_.vcpus, false));
    pod_.SetOnlineVcpus(wanted_.vcpus);
    FaultPoint("resize.guest_grown");
    return absl::OkStatus();
  }

  Status TakeVcpus() {
    if (pod_.online_vcpus() != wanted_.vcpus) {
      // In doubt until it has answered.
      pod_.SetOnlineVcpus(0);
      HUSK_RETURN_IF_ERROR(ResizeGuest(wanted_.vcpus, false));
      pod_.SetOnlineVcpus(wanted_.vcpus);
    }
    FaultPoint("resize.guest_shrunk");
    if (VcpusToTake() == 0) return absl::OkStatus();
    const Status taken = vm_->SetVcpus(context_, wanted_.vcpus);
    // One that the VM was started with, perhaps. Offline it takes no time of the host.
    if (!absl::IsFailedPrecondition(taken)) return taken;
    spdlog::warn("pod={} its unused vCPUs stay in the VM: {}", pod_.id(), Words(taken));
    return absl::OkStatus();
  }

  Status Unplug() {
    const std::uint64_t bytes = WantedPlugged();
    if (can_demand_ && information_.memory_bytes > WantedMemory()) {
      HUSK_RETURN_IF_ERROR(ResizeGuest(Online(), false, information_.memory_bytes - WantedMemory()));
    }
    const bool asked_before = RequestedPlugged() == bytes && information_.memory_bytes > WantedMemory() + kPoke;
    if (asked_before) HUSK_RETURN_IF_ERROR(vm_->SetPluggedMemory(context_, bytes + kPoke));
    HUSK_RETURN_IF_ERROR_DOING(vm_->SetPluggedMemory(context_, bytes), "take memory out of the VM");
    FaultPoint("resize.memory_unplugged");
    return absl::OkStatus();
  }

  // What the guest still has that it shall not.
  [[nodiscard]] Status Remainder() const {
    if (information_.memory_bytes <= WantedMemory() + hypervisor::kMemoryThatMayStay) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("the guest keeps ", information_.memory_bytes - WantedMemory(),
                                               " bytes of memory that were taken from its VM"));
  }

  // Best effort: the cgroup above it is the kubelet's, and limits the pod too.
  void LimitHost(std::uint64_t vm_memory_bytes) {
    const HostLimits limits = LimitsOnHost(vm_memory_bytes, AnnouncedOrMore(needs_), needs_.overhead);
    const Status set = environment_.parts.cgroups->SetLimits(pod_.config().cgroup_parent, pod_.id(), limits);
    if (!set.ok()) spdlog::warn("pod={} limit its cgroup: {}", pod_.id(), Words(set));
  }

  Status Settle() {
    if (!pod_.resizing() || pod_.limits_in_doubt()) return absl::OkStatus();
    HUSK_RETURN_IF_ERROR(environment_.store->SetPodResizing(pod_.id(), false));
    pod_.SetResizing(false);
    spdlog::info("pod={} its VM has {} vCPUs, {} of them in use, and {} bytes of memory", pod_.id(), information_.vcpus,
                 pod_.online_vcpus(), information_.memory_bytes);
    return absl::OkStatus();
  }

  Environment& environment_;
  const Context& context_;
  Pod& pod_;
  const PodNeeds& needs_;
  WantedSize wanted_;
  const bool can_demand_;
  const std::shared_ptr<hypervisor::Vm> vm_;
  const std::shared_ptr<agent::AgentClient> client_;
  VmInformation information_;
  bool began_ = false;
};

}  // namespace

PodNeeds NeedsOf(const Pod& pod, const std::string& but) {
  PodConfig config = pod.Snapshot(false).config;
  PodNeeds needs{.resources = std::move(config.resources),
                 .overhead = std::move(config.overhead),
                 .containers = {},
                 .demanded_memory_bytes = pod.memory_demand()};
  for (ContainerStatus& container : pod.ContainerSnapshots()) {
    if (container.state == ContainerState::kExited || container.id == but) continue;
    const auto wanted = pod.wanted_resources(container.id);
    LinuxResources& shown = container.config.resources;
    needs.containers.push_back(wanted ? MoreOf(shown, *wanted) : std::move(shown));
  }
  return needs;
}

Status RecordResize(Environment& environment, Pod& pod) {
  if (pod.resizing()) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(environment.store->SetPodResizing(pod.id(), true));
  pod.SetResizing(true);
  FaultPoint("resize.recorded");
  return absl::OkStatus();
}

Status GrowPod(Environment& environment, const Context& context, Pod& pod, const PodNeeds& needs) {
  Resize resize(environment, context, pod, needs);
  Status grown = resize.Grow();
  const ResizeResult result = grown.ok() ? ResizeResult::kOk : ResizeResult::kFailed;
  if (resize.began()) environment.parts.observer->OnResize(ResizeDirection::kGrow, result);
  return grown;
}

Status FitPod(Environment& environment, const Context& context, Pod& pod, const PodNeeds& needs) {
  Resize resize(environment, context, pod, needs);
  Status fitted = resize.Fit();
  const ResizeResult result = fitted.ok() ? ResizeResult::kOk : ResizeResult::kOwed;
  if (resize.began()) environment.parts.observer->OnResize(ResizeDirection::kShrink, result);
  return fitted;
}

namespace {

// The limits that are recorded; when the guest has them they are shown.
Status SendAgain(Environment& environment, const Context& context, Pod& pod, const ContainerStatus& container) {
  const auto wanted = pod.wanted_resources(container.id);
  if (!wanted) return SendLimits(context, pod, container.id, container.config.resources);
  HUSK_RETURN_IF_ERROR(SendLimits(context, pod, container.id, *wanted));
  ConfirmLimits(environment, pod, container, *wanted);
  return absl::OkStatus();
}

}  // namespace

Status ConvergePod(Environment& environment, const Context& context, Pod& pod) {
  if (!pod.CheckReady().ok()) return absl::OkStatus();
  Status status = GrowPod(environment, context, pod, NeedsOf(pod));
  if (pod.limits_in_doubt()) {
    Status sent;
    for (const ContainerStatus& container : pod.ContainerSnapshots()) {
      if (container.state != ContainerState::kExited) sent.Update(SendAgain(environment, context, pod, container));
    }
    if (sent.ok()) pod.SetLimitsInDoubt(false);
    status.Update(sent);
  }
  status.Update(FitPod(environment, context, pod, NeedsOf(pod)));
  return status;
}

Status SendLimits(const Context& context, Pod& pod, const std::string& container_id, const LinuxResources& limits,
                  bool check_only) {
  const auto client = pod.client();
  if (client == nullptr) return absl::FailedPreconditionError("the pod has no VM");
  agent::v1::UpdateResourcesRequest request;
  request.set_container_id(container_id);
  request.set_resources_json(MakeOciResources(limits));
  request.set_check_only(check_only);
  return Annotate(client->UpdateResources(context, request),
                  absl::StrCat("change the limits of container ", container_id));
}

void ConfirmLimits(Environment& environment, Pod& pod, const ContainerStatus& container, const LinuxResources& limits) {
  ContainerConfig config = container.config;
  config.resources = limits;
  const Status recorded = environment.store->SetContainerConfig(container.id, config, std::nullopt);
  // The next huskd would show the old ones until it has sent these again.
  if (!recorded.ok()) spdlog::warn("pod={} container={} {}", pod.id(), container.id, Words(recorded));
  pod.SetContainerResources(container.id, limits);
}

void AdoptSize(Environment& environment, Pod& pod) {
  const auto information = pod.vm_information();
  if (!information) return;
  const RuntimeOptions options = OptionsFor(environment.options, pod.config().vm_choices);
  // What was demanded is known from what there is.
  const PodNeeds needs = NeedsOf(pod);
  if (HasMemoryOnDemand(needs)) {
    const std::uint64_t huge_pages = SizeWanted(options, needs).huge_page_bytes;
    const std::uint64_t requested = information->requested_memory_bytes;
    pod.SetMemoryDemand(requested - std::min(requested, huge_pages));
  }
  if (pod.resizing()) return;
  const WantedSize wanted = SizeWanted(options, NeedsOf(pod));
  pod.SetOnlineVcpus(information->vcpus_stay ? std::min(information->vcpus, wanted.vcpus) : information->vcpus);
}

std::string LimitFields(const LinuxResources& resources) {
  std::vector<std::string> fields;
  for (const auto& [size, bytes] : resources.hugepage_limits) {
    if (bytes != 0) fields.push_back(absl::StrCat("hugepage_limits[", size, "]"));
  }
  if (fields.empty() && resources.memory_limit_bytes > 0) fields.emplace_back("memory_limit_in_bytes");
  if (fields.empty() && resources.cpu_quota > 0) fields.emplace_back("cpu_quota");
  return fields.empty() ? "make the VM as large as its containers need" : absl::StrJoin(fields, ", ");
}

}  // namespace husk::sandbox
