#include "sandbox/memory_on_demand.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/logging.h"
#include "sandbox/resize.h"
#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

// By half, and not by less than this: who writes a gibibyte shall not wait a dozen times.
constexpr std::uint64_t kLeastStep = std::uint64_t{256} << 20;
// Less is not worth the guest's work.
constexpr std::uint64_t kLeastReturn = std::uint64_t{64} << 20;
constexpr std::uint64_t kStep = std::uint64_t{4} << 20;

// What the VM's memory shall be now.
std::uint64_t Demand(const RuntimeOptions& options, PodNeeds needs, const MemoryNews& news) {
  const std::uint64_t present = SizeWanted(options, needs).memory_bytes;
  if (news.shortage) {
    return std::min(present + std::max(present / 2, kLeastStep), std::max(present, options.unlimited_memory_bytes));
  }
  needs.demanded_memory_bytes = 0;
  const std::uint64_t least = SizeWanted(options, needs).memory_bytes;
  // Half of what it does not use stays: it may want it again.
  const std::uint64_t leaving = std::min(news.spare_bytes / 2, present - std::min(present, least)) / kStep * kStep;
  return leaving < kLeastReturn ? present : present - leaving;
}

}  // namespace

Status FollowMemoryDemand(Environment& environment, const Context& context, Pod& pod, const MemoryNews& news) {
  PodNeeds needs = NeedsOf(pod);
  if (!HasMemoryOnDemand(needs)) return absl::OkStatus();
  const std::uint64_t before = needs.demanded_memory_bytes;
  const RuntimeOptions options = OptionsFor(environment.options, pod.config().vm_choices);
  const std::uint64_t present = SizeWanted(options, needs).memory_bytes;
  const std::uint64_t demand = Demand(options, needs, news);
  if (demand == present) return absl::OkStatus();
  needs.demanded_memory_bytes = demand;
  pod.SetMemoryDemand(demand);
  spdlog::info("pod={} its guest {}: {} MiB of memory instead of {}", pod.id(),
               news.shortage ? "runs short of memory" : "does not use its memory", demand >> 20, present >> 20);
  const Status changed =
      news.shortage ? GrowPod(environment, context, pod, needs) : FitPod(environment, context, pod, needs);
  if (changed.ok() || !news.shortage) return changed;
  pod.SetMemoryDemand(before);
  FitPod(environment, context, pod, NeedsOf(pod)).IgnoreError();  // what fails is owed
  return changed;
}

void MemoryNewsWorkers::Tell(const std::string& pod_id, const MemoryNews& news) {
  const MutexLock lock(mutex_);
  if (stop_.stop_requested()) return;
  JoinEnded();
  const auto [found, is_new] = workers_.try_emplace(pod_id);
  Worker& worker = found->second;
  if (!is_new) {
    worker.next = news;
    return;
  }
  worker.thread = std::thread([this, pod_id, &worker, news] { Run(pod_id, worker, news); });
}

void MemoryNewsWorkers::Run(const std::string& pod_id, Worker& worker, MemoryNews news) {
  for (;;) {
    work_(Context::Background(absl::StrCat("memory-", pod_id.substr(0, 12))).WithStopToken(stop_.get_token()), pod_id,
          news);
    const MutexLock lock(mutex_);
    if (!worker.next || stop_.stop_requested()) {
      worker.ended = true;
      return;
    }
    news = *std::exchange(worker.next, std::nullopt);
  }
}

void MemoryNewsWorkers::JoinEnded() {
  for (auto worker = workers_.begin(); worker != workers_.end();) {
    if (!worker->second.ended) {
      ++worker;
      continue;
    }
    worker->second.thread.join();
    worker = workers_.erase(worker);
  }
}

void MemoryNewsWorkers::Stop() {
  stop_.request_stop();
  std::map<std::string, Worker> workers;
  {
    const MutexLock lock(mutex_);
    // Nodes stay where they are, and with them what the threads refer to.
    workers.swap(workers_);
  }
  for (auto& [pod_id, worker] : workers) worker.thread.join();
}

}  // namespace husk::sandbox
