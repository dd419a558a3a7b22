// Lets a test's huskd "die" between any two effects on the outside world.
#ifndef HUSK_SANDBOX_TESTING_CRASH_GATE_H_
#define HUSK_SANDBOX_TESTING_CRASH_GATE_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/common/mutex.h"
#include "hypervisor/hypervisor.h"
#include "sandbox/host/cgroup.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// Every call of the parts passes it twice: before its effect, and after. At the chosen passage `at_death` is called, to
// keep what a dead process would leave on the disk, and from then on no call has an effect any more. Thread safe.
class CrashGate {
 public:
  CrashGate(int fatal_passage, std::function<void()> at_death)
      : fatal_passage_(fatal_passage), at_death_(std::move(at_death)) {}
  // One at which nobody dies: `at_passage` is called, without a lock, and everything goes on.
  struct GoesOn {};
  CrashGate(GoesOn /*kind*/, int passage, std::function<void()> at_passage)
      : fatal_passage_(passage), at_death_(std::move(at_passage)), goes_on_(true) {}

  Status Pass() {
    if (goes_on_) {
      if (IsThePassage()) at_death_();
      return absl::OkStatus();
    }
    const MutexLock lock(mutex_);
    if (!dead_ && ++passages_ == fatal_passage_) {
      at_death_();
      dead_ = true;
    }
    return dead_ ? absl::UnavailableError("this process is dead") : absl::OkStatus();
  }
  [[nodiscard]] bool dead() {
    const MutexLock lock(mutex_);
    return dead_;
  }

  template <typename Effect>
  Status Call(Effect effect) {
    HUSK_RETURN_IF_ERROR(Pass());
    HUSK_RETURN_IF_ERROR(effect());
    return Pass();
  }
  template <typename Effect>
  auto CallFor(Effect effect) -> decltype(effect()) {
    HUSK_RETURN_IF_ERROR(Pass());
    auto result = effect();
    HUSK_RETURN_IF_ERROR(Pass());
    return result;
  }

 private:
  bool IsThePassage() {
    const MutexLock lock(mutex_);
    return ++passages_ == fatal_passage_;
  }

  const int fatal_passage_;
  const std::function<void()> at_death_;
  const bool goes_on_ = false;
  Mutex mutex_;
  int passages_ ABSL_GUARDED_BY(mutex_) = 0;
  bool dead_ ABSL_GUARDED_BY(mutex_) = false;
};

class GatedNetwork final : public Network {
 public:
  GatedNetwork(CrashGate& gate, Network& inner) : gate_(gate), inner_(inner) {}
  Status Ready() override { return inner_.Ready(); }
  [[nodiscard]] std::string NamespacePath(const std::string& pod_id) const override {
    return inner_.NamespacePath(pod_id);
  }
  Status CreateNamespace(const Context& context, const std::string& pod_id) override {
    return gate_.Call([&] { return inner_.CreateNamespace(context, pod_id); });
  }
  StatusOr<NetworkResult> Attach(const Context& context, const NetworkRequest& request) override {
    return gate_.CallFor([&] { return inner_.Attach(context, request); });
  }
  StatusOr<UniqueFd> CreateTap(const Context& context, const std::string& pod_id,
                               const NetworkInterface& interface) override {
    return gate_.CallFor([&] { return inner_.CreateTap(context, pod_id, interface); });
  }
  Status Detach(const Context& context, const NetworkRequest& request) override {
    return gate_.Call([&] { return inner_.Detach(context, request); });
  }
  Status RemoveNamespace(const Context& context, const std::string& pod_id) override {
    return gate_.Call([&] { return inner_.RemoveNamespace(context, pod_id); });
  }
  StatusOr<std::vector<std::string>> ExistingNamespaces() override { return inner_.ExistingNamespaces(); }

 private:
  CrashGate& gate_;
  Network& inner_;
};

class GatedCgroups final : public HostCgroups {
 public:
  GatedCgroups(CrashGate& gate, HostCgroups& inner) : gate_(gate), inner_(inner) {}
  StatusOr<std::vector<std::string>> Create(const std::string& parent, const std::string& pod_id) override {
    return gate_.CallFor([&] { return inner_.Create(parent, pod_id); });
  }
  Status SetLimits(const std::string& parent, const std::string& pod_id, const HostLimits& limits) override {
    return gate_.Call([&] { return inner_.SetLimits(parent, pod_id, limits); });
  }
  std::uint64_t OomKills(const std::string& parent, const std::string& pod_id) override {
    return inner_.OomKills(parent, pod_id);
  }
  std::optional<MemoryCeiling> LeastMemoryAbove(const std::string& parent) override {
    return inner_.LeastMemoryAbove(parent);
  }
  HostUsage Usage(const std::string& parent, const std::string& pod_id) override {
    return inner_.Usage(parent, pod_id);
  }
  Status Remove(const Context& context, const std::string& parent, const std::string& pod_id) override {
    return gate_.Call([&] { return inner_.Remove(context, parent, pod_id); });
  }

 private:
  CrashGate& gate_;
  HostCgroups& inner_;
};

class GatedVm final : public hypervisor::Vm {
 public:
  GatedVm(CrashGate& gate, std::unique_ptr<Vm> inner) : gate_(gate), inner_(std::move(inner)) {}
  [[nodiscard]] std::string agent_socket() const override { return inner_->agent_socket(); }
  StatusOr<hypervisor::VmInformation> Information(const Context& context) override {
    return inner_->Information(context);
  }
  StatusOr<std::uint32_t> AttachDisk(const Context& context, const hypervisor::DiskConfig& disk) override {
    return gate_.CallFor([&] { return inner_->AttachDisk(context, disk); });
  }
  Status DetachDisk(const Context& context, std::uint32_t lun) override {
    return gate_.Call([&] { return inner_->DetachDisk(context, lun); });
  }
  StatusOr<std::vector<std::uint32_t>> AttachedDisks(const Context& context) override {
    return inner_->AttachedDisks(context);
  }
  Status AttachSharedDirectory(const Context& context, const hypervisor::SharedDirectory& directory) override {
    return gate_.Call([&] { return inner_->AttachSharedDirectory(context, directory); });
  }
  Status DetachSharedDirectory(const Context& context, const std::string& tag) override {
    return gate_.Call([&] { return inner_->DetachSharedDirectory(context, tag); });
  }
  Status FollowMounts(const Context& context, const hypervisor::FollowedShare& share,
                      std::vector<std::string>& gone) override {
    return gate_.Call([&] { return inner_->FollowMounts(context, share, gone); });
  }
  StatusOr<std::vector<std::string>> SharedDirectories(const Context& context) override {
    return inner_->SharedDirectories(context);
  }
  Status SetPluggedMemory(const Context& context, std::uint64_t bytes) override {
    return gate_.Call([&] { return inner_->SetPluggedMemory(context, bytes); });
  }
  Status SetVcpus(const Context& context, std::uint32_t count) override {
    return gate_.Call([&] { return inner_->SetVcpus(context, count); });
  }
  void OnPluggedMemory(std::function<void(std::uint64_t bytes)> callback) override {
    inner_->OnPluggedMemory(std::move(callback));
  }
  void OnExit(std::function<void(const hypervisor::VmExit&)> callback) override { inner_->OnExit(std::move(callback)); }
  [[nodiscard]] bool alive() const override { return inner_->alive(); }
  Status Kill(const Context& context) override {
    return gate_.Call([&] { return inner_->Kill(context); });
  }
  [[nodiscard]] std::string ConsoleTail(const Context& context) override { return inner_->ConsoleTail(context); }

 private:
  CrashGate& gate_;
  const std::unique_ptr<Vm> inner_;
};

class GatedHypervisor final : public hypervisor::Hypervisor {
 public:
  GatedHypervisor(CrashGate& gate, Hypervisor& inner) : gate_(gate), inner_(inner) {}
  [[nodiscard]] hypervisor::AcceleratorProbe accelerator() const override { return inner_.accelerator(); }
  StatusOr<std::string> Version(const Context& context) override { return inner_.Version(context); }
  StatusOr<std::unique_ptr<hypervisor::Vm>> Start(const Context& context, hypervisor::VmConfig config) override {
    return Wrap(gate_.CallFor([&] { return inner_.Start(context, std::move(config)); }));
  }
  StatusOr<std::unique_ptr<hypervisor::Vm>> Recover(const Context& context, const std::string& directory) override {
    return Wrap(gate_.CallFor([&] { return inner_.Recover(context, directory); }));
  }
  Status Destroy(const Context& context, const std::string& directory) override {
    return gate_.Call([&] { return inner_.Destroy(context, directory); });
  }

 private:
  StatusOr<std::unique_ptr<hypervisor::Vm>> Wrap(StatusOr<std::unique_ptr<hypervisor::Vm>> vm) {
    if (!vm.ok()) return vm.status();
    return std::make_unique<GatedVm>(gate_, *std::move(vm));
  }
  CrashGate& gate_;
  Hypervisor& inner_;
};

class GatedAgentClient final : public agent::AgentClient {
 public:
  GatedAgentClient(CrashGate& gate, std::unique_ptr<AgentClient> inner) : gate_(gate), inner_(std::move(inner)) {}
  StatusOr<agent::v1::HelloResponse> Hello(const Context& context) override {
    return gate_.CallFor([&] { return inner_->Hello(context); });
  }
  Status ConfigureSandbox(const Context& context, const agent::v1::ConfigureSandboxRequest& request) override {
    return gate_.Call([&] { return inner_->ConfigureSandbox(context, request); });
  }
  Status Shutdown(const Context& context) override {
    return gate_.Call([&] { return inner_->Shutdown(context); });
  }
  Status CreateVolume(const Context& context, const agent::v1::CreateVolumeRequest& request) override {
    return gate_.Call([&] { return inner_->CreateVolume(context, request); });
  }
  Status ChangeVolume(const Context& context, const agent::v1::ChangeVolumeRequest& request) override {
    return gate_.Call([&] { return inner_->ChangeVolume(context, request); });
  }
  StatusOr<agent::v1::ReadVolumeResponse> ReadVolume(const Context& context,
                                                     const agent::v1::ReadVolumeRequest& request) override {
    return gate_.CallFor([&] { return inner_->ReadVolume(context, request); });
  }
  Status LookAgain(const Context& context, const agent::v1::LookAgainRequest& request) override {
    return gate_.Call([&] { return inner_->LookAgain(context, request); });
  }
  Status RemoveVolume(const Context& context, const agent::v1::RemoveVolumeRequest& request) override {
    return gate_.Call([&] { return inner_->RemoveVolume(context, request); });
  }
  StatusOr<agent::v1::CreateContainerResponse> CreateContainer(
      const Context& context, const agent::v1::CreateContainerRequest& request) override {
    return gate_.CallFor([&] { return inner_->CreateContainer(context, request); });
  }
  StatusOr<agent::v1::StartContainerResponse> StartContainer(const Context& context,
                                                             const agent::v1::StartContainerRequest& request) override {
    return gate_.CallFor([&] { return inner_->StartContainer(context, request); });
  }
  Status SignalContainer(const Context& context, const agent::v1::SignalContainerRequest& request) override {
    return gate_.Call([&] { return inner_->SignalContainer(context, request); });
  }
  Status RemoveContainer(const Context& context, const agent::v1::RemoveContainerRequest& request) override {
    return gate_.Call([&] { return inner_->RemoveContainer(context, request); });
  }
  Status UpdateResources(const Context& context, const agent::v1::UpdateResourcesRequest& request) override {
    return gate_.Call([&] { return inner_->UpdateResources(context, request); });
  }
  StatusOr<agent::v1::ResizeGuestResponse> ResizeGuest(const Context& context,
                                                       const agent::v1::ResizeGuestRequest& request) override {
    return gate_.CallFor([&] { return inner_->ResizeGuest(context, request); });
  }
  StatusOr<agent::v1::ListProcessesResponse> ListProcesses(const Context& context) override {
    return gate_.CallFor([&] { return inner_->ListProcesses(context); });
  }
  StatusOr<agent::v1::ExecResponse> Exec(const Context& context, const agent::v1::ExecRequest& request) override {
    return inner_->Exec(context, request);
  }
  Status SignalExec(const Context& context, const agent::v1::SignalExecRequest& request) override {
    return inner_->SignalExec(context, request);
  }
  Status RemoveExec(const Context& context, const agent::v1::RemoveExecRequest& request) override {
    return inner_->RemoveExec(context, request);
  }
  // Comes as often as the monitor likes, so it is no passage, but a dead process hears nothing.
  StatusOr<agent::v1::PollResponse> Poll(const Context& context, const agent::v1::PollRequest& request) override {
    auto response = inner_->Poll(context, request);
    if (gate_.dead()) return absl::UnavailableError("this process is dead");
    return response;
  }
  StatusOr<agent::v1::WriteStdinResponse> WriteStdin(const Context& context,
                                                     const agent::v1::WriteStdinRequest& request) override {
    return inner_->WriteStdin(context, request);
  }
  Status ResizeTerminal(const Context& context, const agent::v1::ResizeTerminalRequest& request) override {
    return inner_->ResizeTerminal(context, request);
  }
  Status OpenForwarding(const Context& context, const agent::v1::OpenForwardingRequest& request) override {
    return inner_->OpenForwarding(context, request);
  }
  Status CloseForwarding(const Context& context, const agent::v1::CloseForwardingRequest& request) override {
    return inner_->CloseForwarding(context, request);
  }
  StatusOr<agent::v1::SendForwardingResponse> SendForwarding(const Context& context,
                                                             const agent::v1::SendForwardingRequest& request) override {
    return inner_->SendForwarding(context, request);
  }
  StatusOr<agent::v1::PollForwardingResponse> PollForwarding(const Context& context,
                                                             const agent::v1::PollForwardingRequest& request) override {
    return inner_->PollForwarding(context, request);
  }
  StatusOr<agent::v1::StatsResponse> Stats(const Context& context) override { return inner_->Stats(context); }
  void Close() override { inner_->Close(); }

 private:
  CrashGate& gate_;
  const std::unique_ptr<AgentClient> inner_;
};

class GatedAgents final : public agent::AgentConnector {
 public:
  GatedAgents(CrashGate& gate, AgentConnector& inner) : gate_(gate), inner_(inner) {}
  std::unique_ptr<agent::AgentClient> Connect(const std::string& socket_path) override {
    return std::make_unique<GatedAgentClient>(gate_, inner_.Connect(socket_path));
  }

 private:
  CrashGate& gate_;
  AgentConnector& inner_;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_TESTING_CRASH_GATE_H_
