// What ties a pod in memory to its running VM.
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"
#include "sandbox/id.h"
#include "sandbox/logging.h"
#include "sandbox/pod_operations.h"

namespace husk::sandbox {
namespace {

constexpr auto kInformationWait = std::chrono::seconds(5);
// A guest that takes longer loses its containers' termination messages, and delays only its own pod.
constexpr auto kCopyBackWait = std::chrono::seconds(10);

constexpr std::size_t kMostOfAStartError = 4096;
constexpr std::int32_t kKilledCode = 128 + SIGKILL;
constexpr char kHostOutOfMemory[] =
    "the pod's VM ended: the host killed it for lack of memory, at the limit of its cgroup, which its RuntimeClass's "
    "overhead raises, or of one above: ";

void RecordExit(Environment& environment, const ContainerStatus& status) {
  const Status recorded = environment.store->SetContainerExited(status);
  // The guest knows it as long as the VM lives, and a lost VM makes it EXITED again: nothing depends on the record.
  if (!recorded.ok()) spdlog::error("pod={} container={} {}", status.pod_id, status.id, Words(recorded));
}

// A guest's clock may be wrong, on purpose too: outside of what is possible the host's clock counts.
std::int64_t Plausible(std::int64_t guest_time, std::int64_t not_before) {
  const std::int64_t now = NowNanoseconds();
  return guest_time >= not_before && guest_time <= now ? guest_time : now;
}

// Whoever reads it knows the pod's manifest, not Husk.
std::string VmOutOfMemory(std::uint64_t vm_bytes) {
  const std::string size = vm_bytes == 0 ? "" : absl::StrCat(" of ", vm_bytes >> 20, " MiB");
  return absl::StrCat("the pod's VM", size,
                      " was out of memory, though the container had not reached a limit of its own; ",
                      "memory limits for the pod's containers make its VM as large as their sum");
}

// The termination message is on the host before anyone can see that the container has ended.
void CopyBack(Pod& pod, const ContainerStatus& container) {
  const auto volumes = pod.volumes();
  if (volumes == nullptr || container.config.mounts.empty()) return;
  const Context context = Context::Background("end-" + container.id.substr(0, 12)).WithTimeout(kCopyBackWait);
  const Status copied = volumes->CopyBack(pod.Interruptible(context), container.config.mounts);
  if (!copied.ok()) spdlog::warn("pod={} container={} {}", pod.id(), container.id, Words(copied));
}

void ContainerEnded(Environment& environment, Pod& pod, const std::string& id, const ProcessExit& exit) {
  const auto status = pod.container_status(id);
  if (!status) return;
  std::string reason = "Error";
  std::string message;
  std::int32_t code = exit.exit_code >= 0 && exit.exit_code <= 255 ? exit.exit_code : 255;
  if (exit.unknown) {
    reason = "Unknown";
    message = "the guest does not know the container any more";
    code = 255;
  } else if (!exit.start_error.empty()) {
    reason = "StartError";
    // The guest's words, which a list of containers has to carry.
    message = Printable(exit.start_error, kMostOfAStartError);
    code = 128;
  } else if (exit.oom_killed) {
    reason = "OOMKilled";
    if (exit.guest_out_of_memory) {
      message = VmOutOfMemory(pod.vm_memory_bytes());
    }
  } else if (code == 0) {
    reason = "Completed";
  }
  const std::int64_t finished_at = Plausible(exit.finished_at, std::max(status->started_at, status->created_at));
  CopyBack(pod, *status);
  const bool changed = pod.SetExited(id, finished_at, code, reason, message,
                                     [&](const ContainerStatus& now) { RecordExit(environment, now); });
  if (changed) spdlog::info("pod={} container={} exited with {} ({})", pod.id(), id, code, reason);
}

}  // namespace

void TakeVm(Environment& environment, const Context& context, Pod& pod, std::unique_ptr<hypervisor::Vm> vm) {
  PodVm holder;
  holder.vm = std::move(vm);
  holder.client = environment.parts.agents->Connect(holder.vm->agent_socket());
  SharedDirectories directories(holder.vm, [cgroups = environment.parts.cgroups, parent = pod.config().cgroup_parent,
                                            id = pod.id()] { return cgroups->Create(parent, id); });
  holder.volumes =
      std::make_shared<PodVolumes>(pod.id(), pod.config().metadata.uid, holder.client, std::move(directories));
  auto information = holder.vm->Information(context.WithTimeout(kInformationWait));
  if (information.ok()) holder.information = *std::move(information);
  const std::shared_ptr<hypervisor::Vm> shared = holder.vm;
  pod.SetVm(std::move(holder));
  // Captures neither the pod nor the VM: the callbacks must not be what destroys them.
  shared->OnPluggedMemory([tell = environment.tell_size, id = pod.id()](std::uint64_t /*bytes*/) { tell(id); });
  shared->OnExit([ends = environment.vm_ends, id = pod.id()](const hypervisor::VmExit& exit) {
    ends->Add({.pod_id = id, .reason = exit.reason});
  });
}

void StartPodMonitor(Environment& environment, Pod& pod) {
  pod.StartMonitor(
      {.exited = [&environment, &pod](const std::string& id,
                                      const ProcessExit& exit) { ContainerEnded(environment, pod, id, exit); },
       .checkpoint =
           [&environment, &pod](const std::string& id, const LogCheckpoint& checkpoint) {
             const Status saved = environment.store->SetLogCheckpoint(id, checkpoint);
             // An older checkpoint does as well, it only makes the next start read more.
             if (!saved.ok() && !absl::IsNotFound(saved)) {
               spdlog::warn("pod={} container={} {}", pod.id(), id, Words(saved));
             }
           },
       .logged = [observer = environment.parts.observer](std::uint64_t bytes) { observer->OnLogged(bytes); },
       .memory = [&environment, id = pod.id()](const MemoryNews& news) { environment.tell_memory(id, news); }});
}

void PodVmEnded(Environment& environment, Pod& pod, const std::string& reason) {
  if (pod.ended()) return;
  if (const auto volumes = pod.volumes()) volumes->RequestStop();
  std::vector<ContainerStatus> exited;
  if (pod.stop_requested()) {
    exited = pod.MarkEnded(kStoppedMessage, kStoppedCode, "Error");
  } else {
    spdlog::warn("pod={} its VM ended: {}", pod.id(), reason);
    // Its cgroup remembers it until the pod is removed.
    const bool out_of_memory = environment.parts.cgroups->OomKills(pod.config().cgroup_parent, pod.id()) > 0;
    exited = out_of_memory ? pod.MarkEnded(absl::StrCat(kHostOutOfMemory, reason), kKilledCode, "OOMKilled")
                           : pod.MarkEnded(absl::StrCat("the pod's VM ended: ", reason), 255, "Unknown");
  }
  for (const ContainerStatus& status : exited) RecordExit(environment, status);
}

}  // namespace husk::sandbox
