// RuntimeImpl's work that no call waits for: what failed, what a guest asks for.
#include <chrono>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "sandbox/logging.h"
#include "sandbox/pod_operations.h"
#include "sandbox/resize.h"
#include "sandbox/runtime_impl.h"

namespace husk::sandbox {
namespace {

// Of an attempt at a resize that is owed. Meanwhile it holds the pod's turn, and one of few threads.
constexpr auto kResizeTimeout = std::chrono::seconds(20);

// Of teardowns that are owed.
std::string StopName(const Pod& pod) {
  return absl::StrCat("stop pod ", pod.id());
}
std::string RemovalName(const Pod& pod) {
  return absl::StrCat("remove pod ", pod.id());
}

}  // namespace

void RuntimeImpl::OweStop(const std::shared_ptr<Pod>& pod) {
  owed_.Owe(StopName(*pod), [this, pod](const Context& context) -> Status {
    HUSK_ASSIGN_OR_RETURN(const TurnLock::Turn turn, pod->turns().Take(context));
    return pod->removed() ? absl::OkStatus() : StopPodVm(environment_, context, *pod);
  });
}

void RuntimeImpl::OweRemoval(const std::shared_ptr<Pod>& pod) {
  owed_.Owe(RemovalName(*pod), [this, pod](const Context& context) -> Status {
    HUSK_ASSIGN_OR_RETURN(const TurnLock::Turn turn, pod->turns().Take(context));
    if (pod->removed()) return absl::OkStatus();
    Status removed = RemovePodTraces(environment_, context, *pod);
    DropPodIfRemoved(*pod);
    return removed;
  });
}

void RuntimeImpl::FollowDemand(const Context& context, const std::string& pod_id, const MemoryNews& news) {
  const auto pod = FindPod(pod_id);
  if (!pod.ok()) return;
  const Context interruptible = (*pod)->Interruptible(context.WithTimeout(kResizeTimeout));
  const auto turn = (*pod)->turns().Take(interruptible);
  Status followed = turn.status();
  if (followed.ok() && (*pod)->CheckReady().ok())
    followed = FollowMemoryDemand(environment_, interruptible, **pod, news);
  // Who is still short of memory says so again.
  if (!followed.ok() && (*pod)->CheckReady().ok()) spdlog::warn("pod={} {}", (*pod)->id(), Words(followed));
}

void RuntimeImpl::OweResize(const std::string& pod_id) {
  owed_resizes_.Owe(absl::StrCat("resize pod ", pod_id), [this, pod_id](const Context& context) -> Status {
    const auto pod = FindPod(pod_id);
    if (!pod.ok()) return absl::OkStatus();
    const Context interruptible = (*pod)->Interruptible(context.WithTimeout(kResizeTimeout));
    const auto turn = (*pod)->turns().Take(interruptible);
    if (!(*pod)->CheckReady().ok()) return absl::OkStatus();
    HUSK_RETURN_IF_ERROR(turn.status());
    return ConvergePod(environment_, interruptible, **pod);
  });
}

void RuntimeImpl::OweLook(const std::string& pod_id) {
  owed_resizes_.Owe(
      absl::StrCat("look at the size of pod ", pod_id),
      [this, pod_id](const Context& context) -> Status {
        const auto pod = FindPod(pod_id);
        // A resize looks by itself.
        if (!pod.ok() || (*pod)->resizing()) return absl::OkStatus();
        const Context interruptible = (*pod)->Interruptible(context.WithTimeout(kResizeTimeout));
        const auto turn = (*pod)->turns().Take(interruptible);
        if (!(*pod)->CheckReady().ok() || (*pod)->resizing()) return absl::OkStatus();
        HUSK_RETURN_IF_ERROR(turn.status());
        (*pod)->DoubtSize();
        return ConvergePod(environment_, interruptible, **pod);
      },
      OwedTeardowns::Telling::kFailures);
}

void RuntimeImpl::TakeOver(const Pod& pod) {
  owed_.Interrupt(StopName(pod));
  owed_.Interrupt(RemovalName(pod));
}

}  // namespace husk::sandbox
