// HostCgroups in memory.
#ifndef HUSK_SANDBOX_TESTING_FAKE_CGROUPS_H_
#define HUSK_SANDBOX_TESTING_FAKE_CGROUPS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/common/mutex.h"
#include "sandbox/host/cgroup.h"

namespace husk::sandbox {

// Thread safe.
class FakeCgroups final : public HostCgroups {
 public:
  void FailNextCreate(Status status) {
    const MutexLock lock(mutex_);
    create_failure_ = std::move(status);
  }
  void FailNextRemove(Status status) {
    const MutexLock lock(mutex_);
    remove_failure_ = std::move(status);
  }
  [[nodiscard]] std::size_t count() {
    const MutexLock lock(mutex_);
    return paths_.size();
  }

  StatusOr<std::vector<std::string>> Create(const std::string& parent, const std::string& pod_id) override {
    const MutexLock lock(mutex_);
    if (Status failure = std::exchange(create_failure_, absl::OkStatus()); !failure.ok()) return failure;
    paths_.insert(parent + "/" + pod_id);
    return std::vector<std::string>{"/fake/cgroup/" + pod_id + "/cgroup.procs"};
  }
  Status SetLimits(const std::string& /*parent*/, const std::string& pod_id, const HostLimits& limits) override {
    const MutexLock lock(mutex_);
    limits_[pod_id] = limits;
    return absl::OkStatus();
  }
  std::uint64_t OomKills(const std::string& /*parent*/, const std::string& pod_id) override {
    const MutexLock lock(mutex_);
    return oom_kills_[pod_id] + oom_kills_of_all_;
  }
  [[nodiscard]] HostLimits limits(const std::string& pod_id) {
    const MutexLock lock(mutex_);
    return limits_[pod_id];
  }
  void SetOomKills(const std::string& pod_id, std::uint64_t count) {
    const MutexLock lock(mutex_);
    oom_kills_[pod_id] = count;
  }
  std::optional<MemoryCeiling> LeastMemoryAbove(const std::string& parent) override {
    const MutexLock lock(mutex_);
    const auto found = ceilings_.find(parent);
    return found == ceilings_.end() ? std::nullopt : std::optional(found->second);
  }
  void SetLeastMemoryAbove(const std::string& parent, const MemoryCeiling& ceiling) {
    const MutexLock lock(mutex_);
    ceilings_[parent] = ceiling;
  }
  // Of every pod that is made from now on.
  void SetOomKillsOfAll(std::uint64_t count) {
    const MutexLock lock(mutex_);
    oom_kills_of_all_ = count;
  }
  HostUsage Usage(const std::string& /*parent*/, const std::string& pod_id) override {
    const MutexLock lock(mutex_);
    return usage_[pod_id];
  }
  void SetUsage(const std::string& pod_id, const HostUsage& usage) {
    const MutexLock lock(mutex_);
    usage_[pod_id] = usage;
  }
  Status Remove(const Context& context, const std::string& parent, const std::string& pod_id) override {
    HUSK_RETURN_IF_ERROR(context.Check());
    const MutexLock lock(mutex_);
    if (Status failure = std::exchange(remove_failure_, absl::OkStatus()); !failure.ok()) return failure;
    paths_.erase(parent + "/" + pod_id);
    return absl::OkStatus();
  }

 private:
  Mutex mutex_;
  std::set<std::string> paths_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, HostLimits> limits_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::uint64_t> oom_kills_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, HostUsage> usage_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, MemoryCeiling> ceilings_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t oom_kills_of_all_ ABSL_GUARDED_BY(mutex_) = 0;
  Status create_failure_ ABSL_GUARDED_BY(mutex_);
  Status remove_failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_TESTING_FAKE_CGROUPS_H_
