// A Network in memory, for the tests of what stands above it.
#ifndef HUSK_SANDBOX_NETWORK_FAKE_NETWORK_H_
#define HUSK_SANDBOX_NETWORK_FAKE_NETWORK_H_

#include <fcntl.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/common/mutex.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// Thread safe. It outlives runtimes, as namespaces outlive huskd. Methods fail by the names "CreateNamespace",
// "Attach", "CreateTap", "Detach" and "RemoveNamespace".
class FakeNetwork final : public Network {
 public:
  // The next `times` calls of the method fail, without any effect.
  void FailNext(const std::string& method, Status status, int times = 1) {
    const MutexLock lock(mutex_);
    failures_[method] = {std::move(status), times};
  }
  [[nodiscard]] std::size_t namespaces() {
    const MutexLock lock(mutex_);
    return namespaces_.size();
  }
  [[nodiscard]] std::size_t attachments() {
    const MutexLock lock(mutex_);
    return attached_.size();
  }
  // A namespace that nobody asked for.
  void AddStrayNamespace(const std::string& pod_id) {
    const MutexLock lock(mutex_);
    namespaces_.insert(pod_id);
    attached_[pod_id] = next_address_++;
  }

  Status Ready() override { return absl::OkStatus(); }
  [[nodiscard]] std::string NamespacePath(const std::string& pod_id) const override { return "/fake/netns/" + pod_id; }

  Status CreateNamespace(const Context& context, const std::string& pod_id) override {
    const MutexLock lock(mutex_);
    HUSK_RETURN_IF_ERROR(Check(context, "CreateNamespace"));
    namespaces_.insert(pod_id);
    return absl::OkStatus();
  }

  StatusOr<NetworkResult> Attach(const Context& context, const NetworkRequest& request) override {
    const MutexLock lock(mutex_);
    HUSK_RETURN_IF_ERROR(Check(context, "Attach"));
    if (!namespaces_.contains(request.pod_id)) return absl::FailedPreconditionError("there is no such namespace");
    const auto [entry, is_new] = attached_.try_emplace(request.pod_id, next_address_);
    if (is_new) ++next_address_;
    NetworkResult result;
    result.interfaces.push_back({.name = "eth0",
                                 .mac_address = "02:00:00:00:00:01",
                                 .mtu = 1450,
                                 .addresses = {absl::StrCat("10.88.0.", entry->second, "/16"), "fd00::1/64"},
                                 .routes = {{.destination = "0.0.0.0/0", .gateway = "10.88.0.1"}}});
    result.cni_result_json = "{}";
    return result;
  }

  StatusOr<UniqueFd> CreateTap(const Context& context, const std::string& pod_id,
                               const NetworkInterface& /*interface*/) override {
    const MutexLock lock(mutex_);
    HUSK_RETURN_IF_ERROR(Check(context, "CreateTap"));
    if (!attached_.contains(pod_id)) return absl::FailedPreconditionError("the pod is not attached");
    return UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC));
  }

  Status Detach(const Context& context, const NetworkRequest& request) override {
    const MutexLock lock(mutex_);
    HUSK_RETURN_IF_ERROR(Check(context, "Detach"));
    attached_.erase(request.pod_id);
    return absl::OkStatus();
  }

  Status RemoveNamespace(const Context& context, const std::string& pod_id) override {
    const MutexLock lock(mutex_);
    HUSK_RETURN_IF_ERROR(Check(context, "RemoveNamespace"));
    namespaces_.erase(pod_id);
    return absl::OkStatus();
  }

  StatusOr<std::vector<std::string>> ExistingNamespaces() override {
    const MutexLock lock(mutex_);
    return std::vector<std::string>(namespaces_.begin(), namespaces_.end());
  }

 private:
  struct Failure {
    Status status;
    int times = 0;
  };

  Status Check(const Context& context, const std::string& method) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    HUSK_RETURN_IF_ERROR(context.Check());
    const auto failure = failures_.find(method);
    if (failure == failures_.end() || failure->second.times == 0) return absl::OkStatus();
    --failure->second.times;
    return failure->second.status;
  }

  Mutex mutex_;
  std::map<std::string, Failure> failures_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> namespaces_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> attached_ ABSL_GUARDED_BY(mutex_);
  int next_address_ ABSL_GUARDED_BY(mutex_) = 2;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_FAKE_NETWORK_H_
