// RuntimeImpl's pods of the huskd before this one.
#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sandbox/logging.h"
#include "sandbox/recovery.h"
#include "sandbox/runtime_impl.h"

namespace husk::sandbox {
namespace {

constexpr std::size_t kRecoveryThreads = 8;

}  // namespace

Status RuntimeImpl::Recover(const Context& context) {
  HUSK_ASSIGN_OR_RETURN(const std::string boot_id, ReadBootId());
  HUSK_ASSIGN_OR_RETURN(const std::string stored_boot_id, environment_.store->BootId());
  HUSK_ASSIGN_OR_RETURN(const std::vector<PodRecord> pods, environment_.store->Pods());
  HUSK_ASSIGN_OR_RETURN(std::vector<ContainerRecord> containers, environment_.store->Containers());
  const bool same_boot = stored_boot_id == boot_id;
  if (!pods.empty()) spdlog::info("recovering {} pods{}", pods.size(), same_boot ? "" : "; the host was rebooted");
  environment_.parts.events->BeginRecovery();
  RecoverAll(context, pods, std::move(containers), same_boot);
  environment_.parts.events->EndRecovery();
  HUSK_RETURN_IF_ERROR(environment_.store->SetBootId(boot_id));
  for (const std::string& id : RemoveOrphans(environment_, context, pods)) {
    owed_.Owe(absl::StrCat("remove what is left of pod ", id),
              [this, id](const Context& retried) { return RemoveOrphan(environment_, retried, id); });
  }
  return context.Check();
}

void RuntimeImpl::RecoverAll(const Context& context, const std::vector<PodRecord>& pods,
                             std::vector<ContainerRecord> containers, bool same_boot) {
  std::map<std::string, std::vector<ContainerRecord>> by_pod;
  for (ContainerRecord& container : containers) by_pod[container.status.pod_id].push_back(std::move(container));
  for (const PodRecord& record : pods) {
    AddPod(std::make_shared<Pod>(record, environment_.parts.events, environment_.parts.observer));
    by_pod.try_emplace(record.id);  // so that the threads only read the map itself
  }
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t index = next++; index < pods.size(); index = next++) {
      const PodRecord& record = pods[index];
      const auto pod = FindPod(record.id);
      if (!pod.ok()) continue;
      LateAdoption late = RecoverPod(environment_, context, **pod, record.phase, record.guest_boot_id,
                                     std::move(by_pod.find(record.id)->second), same_boot);
      DropPodIfRemoved(**pod);
      if (late != nullptr) AdoptLater(*pod, std::move(late));
      const bool to_be_removed = record.phase == PodPhase::kCreating || record.phase == PodPhase::kRemoving;
      if (to_be_removed && !(*pod)->removed()) OweRemoval(*pod);
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t count = std::min(kRecoveryThreads, pods.size()); count > 0; --count) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
}

void RuntimeImpl::AdoptLater(const std::shared_ptr<Pod>& pod, LateAdoption late) {
  // No call has come yet: nobody else has it.
  auto turn = pod->turns().Take(Context::Background("adopt"));
  if (!turn.ok()) return;
  pod->SetAdopting(true);
  const MutexLock lock(adoptions_mutex_);
  adoptions_.emplace_back([this, pod, late = std::move(late), turn = *std::move(turn)]() mutable {
    const TurnLock::Turn held = std::move(turn);
    late(Context::Background("adopt-" + pod->id().substr(0, 12)).WithStopToken(detaching_.get_token()));
    pod->SetAdopting(false);
  });
}

}  // namespace husk::sandbox
