// Changes of limits while a pod lives. docs/adr/0116.
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/fault_point.h"
#include "sandbox/container_operations.h"
#include "sandbox/logging.h"
#include "sandbox/pod_operations.h"
#include "sandbox/resize.h"
#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

constexpr auto kFitWait = std::chrono::seconds(10);

// After the change itself, which holds whatever becomes of this: what fails is owed.
void Fit(Environment& environment, const Context& context, Pod& pod) {
  const Status fitted = FitPod(environment, pod.Interruptible(context.Detached(kFitWait)), pod, NeedsOf(pod));
  if (!fitted.ok()) spdlog::warn("pod={} {}", pod.id(), Words(fitted));
}

bool IsLower(std::uint64_t before, std::uint64_t after) {
  return after != 0 && (before == 0 || after < before);
}

// Whether a guest that answered so has changed nothing.
bool ChangedNothing(const Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsResourceExhausted(status) || absl::IsNotFound(status);
}

// One change of one container's limits.
class Update {
 public:
  Update(Environment& environment, const Context& context, Pod& pod, ContainerStatus container,
         const LinuxResources& change)
      : environment_(environment),
        context_(context),
        pod_(pod),
        container_(std::move(container)),
        in_force_(container_.config.resources),
        // Another huskd's change may not have reached the guest yet.
        before_(pod.wanted_resources(container_.id).value_or(in_force_)),
        after_(Changed(before_, change)) {}

  Status Run() {
    // A limit below what is used is refused before anything changes.
    if (IsLower(MemoryLimit(MoreOf(in_force_, before_)), MemoryLimit(after_))) {
      HUSK_RETURN_IF_ERROR(SendLimits(context_, pod_, container_.id, after_, /*check_only=*/true));
    }
    HUSK_RETURN_IF_ERROR(RecordResize(environment_, pod_));
    Status changed = Record(after_);
    if (changed.ok()) changed = MakeRoom();
    if (changed.ok()) changed = Send();
    if (!changed.ok()) return TakeBack(changed);
    ConfirmLimits(environment_, pod_, container_, after_);
    Fit(environment_, context_, pod_);
    return absl::OkStatus();
  }

 private:
  // What shall be in force. What is shown stays that which the guest has confirmed, for the next huskd too.
  Status Record(const LinuxResources& resources) {
    ContainerConfig config = container_.config;
    config.resources = resources;
    return environment_.store->SetContainerConfig(container_.id, config, in_force_);
  }

  Status MakeRoom() {
    // What shrinks is still in force.
    PodNeeds needs = NeedsOf(pod_, container_.id);
    needs.containers.push_back(MoreOf(MoreOf(in_force_, before_), after_));
    return Annotate(GrowPod(environment_, context_, pod_, needs), LimitFields(after_));
  }

  Status Send() {
    Status sent = SendLimits(context_, pod_, container_.id, after_);
    if (sent.ok() || ChangedNothing(sent)) {
      FaultPoint("resize.container_updated");
      return sent;
    }
    // Some of it may be in force.
    pod_.SetLimitsInDoubt(true);
    if (absl::IsInvalidArgument(sent) &&
        SendLimits(pod_.Interruptible(context_.Detached(kFitWait)), pod_, container_.id, before_).ok()) {
      pod_.SetLimitsInDoubt(false);
    }
    return sent;
  }

  // All is as before, or will be.
  Status TakeBack(const Status& why) {
    const Status recorded = Record(before_);
    if (!recorded.ok()) spdlog::error("pod={} container={} {}", pod_.id(), container_.id, Words(recorded));
    if (pod_.limits_in_doubt() || absl::IsDeadlineExceeded(why) || absl::IsCancelled(why)) {
      // Nobody waits for a guest or a VM that was silent just now.
      environment_.owe_resize(pod_.id());
    } else {
      Fit(environment_, context_, pod_);
    }
    return why;
  }

  Environment& environment_;
  const Context& context_;
  Pod& pod_;
  const ContainerStatus container_;  // as it is shown
  const LinuxResources in_force_;
  const LinuxResources before_;  // as recorded
  const LinuxResources after_;
};

}  // namespace

Status UpdateContainerInPod(Environment& environment, const Context& context, Pod& pod, const std::string& id,
                            const LinuxResources& change) {
  auto status = pod.container_status(id);
  if (!status) return absl::NotFoundError(absl::StrCat("there is no container ", id));
  if (status->state == ContainerState::kExited || pod.client() == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("container ", id, " has exited"));
  }
  HUSK_RETURN_IF_ERROR(Update(environment, context, pod, *std::move(status), change).Run());
  spdlog::info("pod={} container={} has other limits", pod.id(), id);
  return absl::OkStatus();
}

Status UpdatePodLimits(Environment& environment, const Context& context, Pod& pod, const LinuxResources& resources,
                       const LinuxResources& overhead) {
  const PodConfig before = pod.Snapshot(false).config;
  PodConfig config = before;
  config.resources = Changed(config.resources, resources);
  config.overhead = Changed(config.overhead, overhead);
  PodNeeds needs = NeedsOf(pod);
  needs.resources = config.resources;
  needs.overhead = config.overhead;
  HUSK_RETURN_IF_ERROR(RecordResize(environment, pod));
  Status grown = environment.store->SetPodConfig(pod.id(), config);
  if (grown.ok()) grown = GrowPod(environment, context, pod, needs);
  if (grown.ok()) {
    pod.SetResources(std::move(config.resources), std::move(config.overhead));
  } else {
    const Status recorded = environment.store->SetPodConfig(pod.id(), before);
    if (!recorded.ok()) spdlog::error("pod={} {}", pod.id(), Words(recorded));
  }
  Fit(environment, context, pod);
  return grown;
}

}  // namespace husk::sandbox
