// runtime.h's implementation: finds pods and containers, has operations take turns, joins repeated calls.
#ifndef HUSK_SANDBOX_RUNTIME_IMPL_H_
#define HUSK_SANDBOX_RUNTIME_IMPL_H_

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "agent/common/mutex.h"
#include "sandbox/environment.h"
#include "sandbox/memory_on_demand.h"
#include "sandbox/owed_teardowns.h"
#include "sandbox/pod.h"
#include "sandbox/recovery.h"
#include "sandbox/runtime.h"

namespace husk::sandbox {

// Locks, in the order in which they may be taken: runs_mutex_, pods_mutex_, a pod's own. The store's is taken alone.
class RuntimeImpl final : public Runtime {
 public:
  explicit RuntimeImpl(Environment environment);
  // Detaches.
  ~RuntimeImpl() override;

  Status Recover(const Context& context) override;
  StatusOr<std::string> RunPod(const Context& context, const PodConfig& config) override;
  Status StopPod(const Context& context, const std::string& id) override;
  Status RemovePod(const Context& context, const std::string& id) override;
  StatusOr<PodStatus> GetPod(const std::string& id, bool verbose) override;
  Status UpdatePodResources(const Context& context, const std::string& id, const LinuxResources& resources,
                            const LinuxResources& overhead) override;
  std::vector<PodStatus> ListPods(const PodFilter& filter) override;
  StatusOr<std::string> CreateContainer(const Context& context, const std::string& pod_id,
                                        const ContainerConfig& config) override;
  Status StartContainer(const Context& context, const std::string& id) override;
  Status StopContainer(const Context& context, const std::string& id, std::chrono::nanoseconds grace) override;
  Status RemoveContainer(const Context& context, const std::string& id) override;
  Status UpdateContainerResources(const Context& context, const std::string& id, const LinuxResources& change) override;
  StatusOr<ContainerStatus> GetContainer(const std::string& id, bool verbose) override;
  std::vector<ContainerStatus> ListContainers(const ContainerFilter& filter) override;
  StatusOr<PodStats> GetPodStats(const Context& context, const std::string& id) override;
  std::vector<PodStats> ListPodStats(const Context& context, const PodFilter& filter) override;
  StatusOr<ContainerStats> GetContainerStats(const Context& context, const std::string& id) override;
  std::vector<ContainerStats> ListContainerStats(const Context& context, const ContainerFilter& filter) override;
  std::vector<VmFigures> ListVms() override;
  StatusOr<ExecResult> ExecSync(const Context& context, const std::string& id, const std::vector<std::string>& command,
                                std::chrono::nanoseconds timeout) override;
  StatusOr<std::int32_t> Exec(const Context& context, const std::string& id, const ExecOptions& options,
                              ClientStreams& streams) override;
  Status Attach(const Context& context, const std::string& id, const AttachOptions& options,
                ClientStreams& streams) override;
  Status PortForward(const Context& context, const std::string& id, PortExchange& exchange) override;
  Status ReopenContainerLog(const Context& context, const std::string& id) override;
  void Detach() override;

 private:
  // Name, namespace, uid, attempt.
  using PodKey = std::tuple<std::string, std::string, std::string, std::uint32_t>;
  // A RunPod under way, for its repetitions to wait for.
  struct Run {
    std::optional<StatusOr<std::string>> result;
  };
  struct Located {
    std::shared_ptr<Pod> pod;
    std::string container_id;
  };
  // Counts a call that changes something, so that Detach can wait for it; its context ends when Detach is called.
  class Call {
   public:
    Call(RuntimeImpl& runtime, const Context& context);
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call();
    [[nodiscard]] const Context& context() const { return context_; }
    // UNAVAILABLE after Detach.
    [[nodiscard]] const Status& status() const { return status_; }

   private:
    RuntimeImpl& runtime_;
    const Context context_;
    Status status_;
    bool counted_ = false;
  };

  using EndStep = Status (*)(Environment& environment, const Context& context, Pod& pod);
  using OweEnd = void (RuntimeImpl::*)(const std::shared_ptr<Pod>& pod);
  // Whatever else is done to the pod ends; what fails is owed. OK if there is no such pod.
  Status EndPod(const Context& context, const std::string& id, EndStep end, OweEnd owe);
  static PodKey KeyOf(const PodConfig& config);
  // The READY pod with this key, or the run to join, or, if there is neither, a new run that the caller must end.
  struct Entry {
    std::optional<std::string> ready_id;
    std::shared_ptr<Run> run;
    bool owner = false;
  };
  Entry EnterRun(const PodKey& key);
  void EndRun(const PodKey& key, const std::shared_ptr<Run>& run, StatusOr<std::string> result);
  StatusOr<std::string> RunNewPod(const Context& context, const PodConfig& config);

  // Exact ids and unique prefixes. NOT_FOUND; INVALID_ARGUMENT for a prefix of several.
  StatusOr<std::shared_ptr<Pod>> FindPod(const std::string& id);
  StatusOr<Located> FindContainer(const std::string& id);
  std::vector<std::shared_ptr<Pod>> AllPods();
  void AddPod(const std::shared_ptr<Pod>& pod);
  // If it was removed.
  void DropPodIfRemoved(Pod& pod);
  void RecoverAll(const Context& context, const std::vector<PodRecord>& pods, std::vector<ContainerRecord> containers,
                  bool same_boot);
  // Goes on in the background, with the pod's turn.
  void AdoptLater(const std::shared_ptr<Pod>& pod, LateAdoption late);
  void WatchVmEnds();
  // A stop or removal that failed, or that nobody has asked for, is tried again until it succeeds.
  void OweStop(const std::shared_ptr<Pod>& pod);
  void OweRemoval(const std::shared_ptr<Pod>& pod);
  void OweResize(const std::string& pod_id);
  void OweLook(const std::string& pod_id);
  void FollowDemand(const Context& context, const std::string& pod_id, const MemoryNews& news);
  // A caller does it now.
  void TakeOver(const Pod& pod);

  Environment environment_;

  Mutex runs_mutex_;
  ConditionVariable runs_changed_;
  std::map<PodKey, std::shared_ptr<Run>> runs_ ABSL_GUARDED_BY(runs_mutex_);

  Mutex pods_mutex_;
  std::map<std::string, std::shared_ptr<Pod>> pods_ ABSL_GUARDED_BY(pods_mutex_);

  Mutex calls_mutex_;
  ConditionVariable calls_changed_;
  int calls_ ABSL_GUARDED_BY(calls_mutex_) = 0;
  bool detached_ ABSL_GUARDED_BY(calls_mutex_) = false;
  std::stop_source detaching_;  // thread safe by itself

  // Last: they use the rest.
  Mutex adoptions_mutex_;
  std::vector<std::thread> adoptions_ ABSL_GUARDED_BY(adoptions_mutex_);
  OwedTeardowns owed_;
  // Apart from teardowns, and several at a time: each silent guest holds up one.
  OwedTeardowns owed_resizes_{std::chrono::milliseconds(200), 4};
  MemoryNewsWorkers memory_news_;
  std::thread vm_ends_thread_;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_RUNTIME_IMPL_H_
