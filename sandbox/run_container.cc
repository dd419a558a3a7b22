#include <algorithm>
#include <chrono>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "sandbox/container_disks.h"
#include "sandbox/container_operations.h"
#include "sandbox/id.h"
#include "sandbox/logging.h"
#include "sandbox/resize.h"
#include "sandbox/signals.h"

namespace husk::sandbox {
namespace {

constexpr auto kLongestGrace = std::chrono::hours(24 * 365);
constexpr auto kKillWait = std::chrono::seconds(30);
constexpr auto kDoubtWait = std::chrono::seconds(10);
constexpr auto kGiveBackWait = std::chrono::seconds(10);

Status NoContainer(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("there is no container ", id));
}

Status SendSignal(const Context& context, Pod& pod, const std::string& id, std::uint32_t signal, bool all) {
  const auto client = pod.client();
  if (client == nullptr) return absl::UnavailableError("the pod has no VM");
  agent::v1::SignalContainerRequest request;
  request.set_container_id(id);
  request.set_signal(signal);
  request.set_all_processes(all);
  return client->SignalContainer(context, request);
}

// Sends it unless the container ends in the meantime, which is what signals are for.
Status SignalUnlessExited(const Context& context, Pod& pod, const std::string& id, std::uint32_t signal, bool all) {
  const Status sent = SendSignal(context, pod, id, signal, all);
  const auto status = pod.container_status(id);
  if (!status || status->state == ContainerState::kExited) return absl::OkStatus();
  // The guest knows it no more, so its end is about to be noticed.
  if (absl::IsNotFound(sent)) return absl::OkStatus();
  return Annotate(sent, absl::StrCat("send signal ", signal, " to container ", id));
}

Status KillAndWait(const Context& context, Pod& pod, const std::string& id) {
  HUSK_RETURN_IF_ERROR(SignalUnlessExited(context, pod, id, SIGKILL, /*all=*/true));
  return Annotate(pod.WaitForExit(context, id), absl::StrCat("wait for the end of container ", id));
}

void ShowRunning(Environment& environment, Pod& pod, const std::string& id, std::int64_t started_at,
                 std::uint32_t guest_pid) {
  const Status recorded = environment.store->SetContainerStarted(id, started_at);
  // It runs, and a later huskd will hear so from the guest.
  if (!recorded.ok()) spdlog::error("pod={} container={} {}", pod.id(), id, Words(recorded));
  if (!pod.SetRunning(id, started_at, guest_pid)) return;
  pod.Watch(id);
  spdlog::info("pod={} container={} started", pod.id(), id);
}

// A start whose answer was lost may have taken effect. What runs must not be shown as CREATED.
void ResolveDoubt(Environment& environment, const Context& context, Pod& pod, const std::string& id) {
  const auto client = pod.client();
  if (client == nullptr || pod.ended()) return;
  const auto processes = client->ListProcesses(pod.Interruptible(context.Detached(kDoubtWait)));
  if (!processes.ok()) return;
  for (const agent::v1::ProcessStatus& process : processes->processes()) {
    if (process.container_id() != id || !process.exec_id().empty()) continue;
    if (process.state() != agent::v1::CREATED) ShowRunning(environment, pod, id, NowNanoseconds(), process.pid());
  }
}

Status RemoveFromGuest(const Context& context, Pod& pod, const Container& container) {
  const auto vm = pod.vm();
  const auto client = pod.client();
  if (vm == nullptr || client == nullptr || !vm->alive()) return absl::OkStatus();
  agent::v1::RemoveContainerRequest request;
  request.set_container_id(container.id);
  HUSK_RETURN_IF_ERROR_DOING(client->RemoveContainer(context, request), "remove it from the guest");
  if (const auto volumes = pod.volumes()) {
    const auto status = pod.container_status(container.id);
    if (status) HUSK_RETURN_IF_ERROR_DOING(volumes->Release(context, status->config.mounts), "remove its volumes");
  }
  return DetachDisks(context, pod, container);
}

}  // namespace

Status StartContainerInPod(Environment& environment, const Context& context, Pod& pod, const std::string& id) {
  const auto status = pod.container_status(id);
  const auto client = pod.client();
  if (!status) return NoContainer(id);
  if (status->state == ContainerState::kRunning) return absl::OkStatus();
  if (status->state != ContainerState::kCreated || client == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("container ", id, " has exited; it cannot be started again"));
  }
  agent::v1::StartContainerRequest request;
  request.set_container_id(id);
  const auto started = client->StartContainer(context, request);
  if (started.ok()) {
    // The host's clock: the guest's may be wrong, and finished_at must not be before.
    ShowRunning(environment, pod, id, NowNanoseconds(), started->pid());
    return absl::OkStatus();
  }
  if (absl::IsFailedPrecondition(started.status())) {
    pod.SetExited(id, NowNanoseconds(), 128, "StartError", std::string(started.status().message()),
                  [&](const ContainerStatus& exited) {
                    const Status recorded = environment.store->SetContainerExited(exited);
                    if (!recorded.ok()) spdlog::error("pod={} container={} {}", pod.id(), id, Words(recorded));
                  });
  } else {
    ResolveDoubt(environment, context, pod, id);
  }
  return Annotate(started.status(), absl::StrCat("start container ", id));
}

Status StopContainerInPod(const Context& context, Pod& pod, const std::string& id, std::chrono::nanoseconds grace) {
  const auto status = pod.container_status(id);
  const auto container = pod.container(id);
  // What was never started has nothing to stop.
  if (!status || !container || status->state != ContainerState::kRunning) return absl::OkStatus();
  if (grace > std::chrono::nanoseconds::zero()) {
    std::uint32_t signal = SIGTERM;
    if (!container->stop_signal.empty()) {
      const auto parsed = ParseSignal(container->stop_signal);
      // The image's; the configuration's was checked.
      if (parsed.ok()) signal = *parsed;
      if (!parsed.ok()) spdlog::warn("pod={} container={} stop signal: {}", pod.id(), id, Words(parsed.status()));
    }
    if (pod.TakeStopSignal(id)) {
      HUSK_RETURN_IF_ERROR(SignalUnlessExited(context, pod, id, signal, /*all=*/false));
    }
    const Context patient = context.WithTimeout(std::min<std::chrono::nanoseconds>(grace, kLongestGrace));
    if (pod.WaitForExit(patient, id).ok()) return absl::OkStatus();
    HUSK_RETURN_IF_ERROR_DOING(context.Check(), absl::StrCat("wait for the end of container ", id));
    spdlog::info("pod={} container={} still runs after its grace period: killing it", pod.id(), id);
  }
  return KillAndWait(context, pod, id);
}

Status RemoveContainerFromPod(Environment& environment, const Context& context, Pod& pod, const std::string& id) {
  const auto container = pod.container(id);
  const auto status = pod.container_status(id);
  if (!container || !status) return absl::OkStatus();
  if (status->state == ContainerState::kRunning) {
    HUSK_RETURN_IF_ERROR(KillAndWait(context.WithTimeout(kKillWait), pod, id));
  }
  HUSK_RETURN_IF_ERROR(environment.store->SetContainerPhase(id, ContainerPhase::kRemoving));
  const Status removed = RemoveFromGuest(context, pod, *container);
  // A VM that ended took the container with it.
  if (!removed.ok() && !pod.ended()) return Annotate(removed, absl::StrCat("remove container ", id));
  if (!pod.ended() && pod.CheckReady().ok()) {
    const Status fitted =
        FitPod(environment, pod.Interruptible(context.WithTimeout(kGiveBackWait)), pod, NeedsOf(pod, id));
    // It is tried again.
    if (!fitted.ok()) spdlog::warn("pod={} {}", pod.id(), Words(fitted));
  }
  HUSK_RETURN_IF_ERROR(environment.store->RemoveContainer(id));
  pod.DropContainer(id);
  spdlog::info("pod={} container={} removed", pod.id(), id);
  return absl::OkStatus();
}

}  // namespace husk::sandbox
