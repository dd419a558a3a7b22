// Stand-ins for the rooms below, for the tests of the services: they record what they were told and answer as set.
#ifndef HUSK_CRI_SERVICE_FAKES_FOR_TEST_H_
#define HUSK_CRI_SERVICE_FAKES_FOR_TEST_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/common/mutex.h"
#include "images/image_service.h"
#include "sandbox/network/network.h"
#include "sandbox/runtime.h"

namespace husk::cri {

class FakeRuntime : public sandbox::Runtime {
 public:
  // Called instead of running a pod, if set; before any call.
  std::function<Status(const Context&)> on_run_pod;
  std::function<StatusOr<sandbox::ExecResult>(std::chrono::nanoseconds)> on_exec;

  std::vector<std::string> Calls() const {
    const MutexLock lock(mutex_);
    return calls_;
  }

  Status Recover(const Context& /*context*/) override { return absl::OkStatus(); }
  StatusOr<std::string> RunPod(const Context& context, const sandbox::PodConfig& config) override {
    if (on_run_pod) HUSK_RETURN_IF_ERROR(on_run_pod(context));
    const MutexLock lock(mutex_);
    sandbox::PodStatus pod;
    pod.id = "pod-of-" + config.metadata.name;
    pod.config = config;
    pod.state = sandbox::PodState::kReady;
    pod.created_at = 1;
    pod.addresses = {"10.88.0.2"};
    pod.information = {{"vm", "{}"}};
    pods_[pod.id] = pod;
    return pod.id;
  }
  Status StopPod(const Context& /*context*/, const std::string& id) override { return Record("stop " + id); }
  Status RemovePod(const Context& /*context*/, const std::string& id) override {
    const MutexLock lock(mutex_);
    pods_.erase(id);
    return absl::OkStatus();
  }
  StatusOr<sandbox::PodStatus> GetPod(const std::string& id, bool /*verbose*/) override {
    const MutexLock lock(mutex_);
    const auto pod = pods_.find(id);
    if (pod == pods_.end()) return absl::NotFoundError("there is no pod " + id);
    return pod->second;
  }
  Status UpdatePodResources(const Context& /*context*/, const std::string& id, const sandbox::LinuxResources& resources,
                            const sandbox::LinuxResources& overhead) override {
    return Record("update pod " + id + " " + std::to_string(resources.memory_limit_bytes) + " " +
                  std::to_string(overhead.memory_limit_bytes));
  }
  std::vector<sandbox::PodStatus> ListPods(const sandbox::PodFilter& filter) override {
    const MutexLock lock(mutex_);
    std::vector<sandbox::PodStatus> result;
    for (const auto& [id, pod] : pods_) {
      if (!filter.state || *filter.state == pod.state) result.push_back(pod);
    }
    return result;
  }
  StatusOr<std::string> CreateContainer(const Context& /*context*/, const std::string& pod_id,
                                        const sandbox::ContainerConfig& config) override {
    const MutexLock lock(mutex_);
    sandbox::ContainerStatus container;
    container.id = "container-" + config.metadata.name;
    container.pod_id = pod_id;
    container.config = config;
    container.state = sandbox::ContainerState::kCreated;
    containers_[container.id] = container;
    return container.id;
  }
  Status StartContainer(const Context& /*context*/, const std::string& id) override {
    {
      const MutexLock lock(mutex_);
      const auto container = containers_.find(id);
      if (container != containers_.end()) container->second.state = sandbox::ContainerState::kRunning;
    }
    return Record("start " + id);
  }
  Status StopContainer(const Context& /*context*/, const std::string& id, std::chrono::nanoseconds grace) override {
    return Record("stop " + id + " " + std::to_string(grace.count()));
  }
  Status RemoveContainer(const Context& /*context*/, const std::string& id) override { return Record("remove " + id); }
  Status UpdateContainerResources(const Context& /*context*/, const std::string& id,
                                  const sandbox::LinuxResources& change) override {
    return Record("update " + id + " " + std::to_string(change.memory_limit_bytes));
  }
  StatusOr<sandbox::ContainerStatus> GetContainer(const std::string& id, bool /*verbose*/) override {
    const MutexLock lock(mutex_);
    const auto container = containers_.find(id);
    if (container == containers_.end()) return absl::NotFoundError("there is no container " + id);
    return container->second;
  }
  std::vector<sandbox::ContainerStatus> ListContainers(const sandbox::ContainerFilter& /*filter*/) override {
    const MutexLock lock(mutex_);
    std::vector<sandbox::ContainerStatus> result;
    for (const auto& [id, container] : containers_) result.push_back(container);
    return result;
  }
  std::map<std::string, sandbox::PodFigures> figures;  // by pod's id; set before the first call
  StatusOr<sandbox::PodStats> GetPodStats(const Context& /*context*/, const std::string& id) override {
    HUSK_ASSIGN_OR_RETURN(const sandbox::PodStatus status, GetPod(id, false));
    sandbox::PodStats stats{.status = status, .figures = figures[id], .default_interface = "eth0"};
    for (const auto& container : ListContainerStats(Context::Background(), {.pod_id = id})) {
      stats.containers.push_back(container);
    }
    return stats;
  }
  std::vector<sandbox::PodStats> ListPodStats(const Context& context, const sandbox::PodFilter& filter) override {
    std::vector<sandbox::PodStats> list;
    for (const sandbox::PodStatus& pod : ListPods(filter)) {
      if (pod.id.starts_with(filter.id)) list.push_back(*GetPodStats(context, pod.id));
    }
    return list;
  }
  StatusOr<sandbox::ContainerStats> GetContainerStats(const Context& /*context*/, const std::string& id) override {
    HUSK_ASSIGN_OR_RETURN(const sandbox::ContainerStatus status, GetContainer(id, false));
    sandbox::PodFigures& pod = figures[status.pod_id];
    return sandbox::ContainerStats{.status = status, .timestamp = pod.timestamp, .figures = pod.containers[id]};
  }
  std::vector<sandbox::ContainerStats> ListContainerStats(const Context& context,
                                                          const sandbox::ContainerFilter& filter) override {
    std::vector<sandbox::ContainerStats> list;
    for (const sandbox::ContainerStatus& container : ListContainers({})) {
      if (!container.pod_id.starts_with(filter.pod_id) || !container.id.starts_with(filter.id)) continue;
      list.push_back(*GetContainerStats(context, container.id));
    }
    return list;
  }
  std::vector<sandbox::VmFigures> vms;  // set before the first call
  std::vector<sandbox::VmFigures> ListVms() override { return vms; }
  StatusOr<sandbox::ExecResult> ExecSync(const Context& /*context*/, const std::string& /*id*/,
                                         const std::vector<std::string>& /*command*/,
                                         std::chrono::nanoseconds timeout) override {
    return on_exec(timeout);
  }
  StatusOr<std::int32_t> Exec(const Context& context, const std::string& /*id*/,
                              const sandbox::ExecOptions& /*options*/, sandbox::ClientStreams& streams) override {
    HUSK_RETURN_IF_ERROR(streams.Write(context, sandbox::OutputKind::kStandardOutput, "out"));
    return 42;
  }
  Status Attach(const Context& context, const std::string& id, const sandbox::AttachOptions& options,
                sandbox::ClientStreams& streams) override {
    if (options.standard_error) return absl::UnavailableError("it is gone");
    return streams.Write(context, sandbox::OutputKind::kStandardOutput, "output of " + id);
  }
  Status PortForward(const Context& /*context*/, const std::string& id, sandbox::PortExchange& /*exchange*/) override {
    return Record("forward " + id);
  }
  Status ReopenContainerLog(const Context& /*context*/, const std::string& id) override {
    return Record("reopen " + id);
  }
  void Detach() override {}

 private:
  Status Record(const std::string& call) {
    const MutexLock lock(mutex_);
    calls_.push_back(call);
    return absl::OkStatus();
  }

  mutable Mutex mutex_;
  std::map<std::string, sandbox::PodStatus> pods_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, sandbox::ContainerStatus> containers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> calls_ ABSL_GUARDED_BY(mutex_);
};

class FakeImages : public images::ImageService {
 public:
  std::function<StatusOr<images::Image>(const Context&, const std::string&, const images::RegistryCredentials&,
                                        const std::function<void(const images::PullProgress&)>&)>
      on_pull;
  std::vector<images::Image> all;  // set before the first call

  StatusOr<images::Image> Pull(const Context& context, const std::string& reference,
                               const images::RegistryCredentials& credentials,
                               const std::function<void(const images::PullProgress&)>& progress) override {
    return on_pull(context, reference, credentials, progress);
  }
  StatusOr<std::optional<images::Image>> Find(const std::string& reference) override {
    for (const images::Image& image : all) {
      if (image.id == reference) return image;
    }
    return std::optional<images::Image>();
  }
  StatusOr<std::vector<images::Image>> List() override { return all; }
  Status Remove(const Context& /*context*/, const std::string& /*reference*/) override { return absl::OkStatus(); }
  StatusOr<images::FileSystemUsage> Usage() override {
    return images::FileSystemUsage{.directory = "/var/lib/husk/images", .used_bytes = 5, .inodes_used = 6};
  }
  StatusOr<std::shared_ptr<images::ImageLease>> Acquire(const std::string& reference) override {
    return absl::NotFoundError(reference);
  }
  Status CollectGarbage(const Context& /*context*/) override { return absl::OkStatus(); }
};

class FakeNetwork : public sandbox::Network {
 public:
  Status ready = absl::OkStatus();  // set before the first call

  [[nodiscard]] Status Ready() override { return ready; }
  [[nodiscard]] std::string NamespacePath(const std::string& pod_id) const override { return pod_id; }
  Status CreateNamespace(const Context& /*context*/, const std::string& /*pod_id*/) override {
    return absl::OkStatus();
  }
  StatusOr<sandbox::NetworkResult> Attach(const Context& /*context*/,
                                          const sandbox::NetworkRequest& /*request*/) override {
    return sandbox::NetworkResult();
  }
  StatusOr<UniqueFd> CreateTap(const Context& /*context*/, const std::string& /*pod_id*/,
                               const sandbox::NetworkInterface& /*interface*/) override {
    return UniqueFd();
  }
  Status Detach(const Context& /*context*/, const sandbox::NetworkRequest& /*request*/) override {
    return absl::OkStatus();
  }
  Status RemoveNamespace(const Context& /*context*/, const std::string& /*pod_id*/) override {
    return absl::OkStatus();
  }
  [[nodiscard]] StatusOr<std::vector<std::string>> ExistingNamespaces() override { return std::vector<std::string>(); }
};

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_FAKES_FOR_TEST_H_
