// The client of a fake guest; for fake_agent.cc only.
#ifndef HUSK_AGENT_CLIENT_FAKE_CLIENT_H_
#define HUSK_AGENT_CLIENT_FAKE_CLIENT_H_

#include <stop_token>
#include <string>

#include "agent/client/agent_client.h"
#include "agent/client/fake_guest_state.h"

namespace husk::agent {

class FakeAgentClient : public AgentClient {
 public:
  explicit FakeAgentClient(FakeGuest::State& guest) : guest_(guest) {}
  ~FakeAgentClient() override { Close(); }

  StatusOr<v1::HelloResponse> Hello(const Context& context) override;
  Status ConfigureSandbox(const Context& context, const v1::ConfigureSandboxRequest& request) override;
  Status Shutdown(const Context& context) override;
  Status CreateVolume(const Context& context, const v1::CreateVolumeRequest& request) override;
  Status ChangeVolume(const Context& context, const v1::ChangeVolumeRequest& request) override;
  StatusOr<v1::ReadVolumeResponse> ReadVolume(const Context& context, const v1::ReadVolumeRequest& request) override;
  Status LookAgain(const Context& context, const v1::LookAgainRequest& request) override;
  Status RemoveVolume(const Context& context, const v1::RemoveVolumeRequest& request) override;
  StatusOr<v1::CreateContainerResponse> CreateContainer(const Context& context,
                                                        const v1::CreateContainerRequest& request) override;
  StatusOr<v1::StartContainerResponse> StartContainer(const Context& context,
                                                      const v1::StartContainerRequest& request) override;
  Status SignalContainer(const Context& context, const v1::SignalContainerRequest& request) override;
  Status RemoveContainer(const Context& context, const v1::RemoveContainerRequest& request) override;
  Status UpdateResources(const Context& context, const v1::UpdateResourcesRequest& request) override;
  StatusOr<v1::ResizeGuestResponse> ResizeGuest(const Context& context, const v1::ResizeGuestRequest& request) override;
  StatusOr<v1::ListProcessesResponse> ListProcesses(const Context& context) override;
  StatusOr<v1::ExecResponse> Exec(const Context& context, const v1::ExecRequest& request) override;
  Status SignalExec(const Context& context, const v1::SignalExecRequest& request) override;
  Status RemoveExec(const Context& context, const v1::RemoveExecRequest& request) override;
  StatusOr<v1::PollResponse> Poll(const Context& context, const v1::PollRequest& request) override;
  StatusOr<v1::WriteStdinResponse> WriteStdin(const Context& context, const v1::WriteStdinRequest& request) override;
  Status ResizeTerminal(const Context& context, const v1::ResizeTerminalRequest& request) override;
  Status OpenForwarding(const Context& context, const v1::OpenForwardingRequest& request) override;
  Status CloseForwarding(const Context& context, const v1::CloseForwardingRequest& request) override;
  StatusOr<v1::SendForwardingResponse> SendForwarding(const Context& context,
                                                      const v1::SendForwardingRequest& request) override;
  StatusOr<v1::PollForwardingResponse> PollForwarding(const Context& context,
                                                      const v1::PollForwardingRequest& request) override;
  StatusOr<v1::StatsResponse> Stats(const Context& context) override;
  void Close() override { closed_.request_stop(); }

 private:
  // Close() ends calls as a context's end does; only the error differs.
  template <typename Effect>
  Status Call(const Context& context, const std::string& method, Effect effect) {
    return Translate(context, guest_.Call(context.WithStopToken(closed_.get_token()), method, effect));
  }
  [[nodiscard]] Status Translate(const Context& context, Status status) const {
    if (closed_.stop_requested() && absl::IsCancelled(status) && context.Check().ok()) {
      return absl::UnavailableError("the agent's channel was closed");
    }
    return status;
  }
  v1::PollResponse Collect(const v1::PollRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(guest_.mutex);
  v1::PollForwardingResponse CollectForwarding(const v1::PollForwardingRequest& request, FakeForwarding& forwarding)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(guest_.mutex);

  FakeGuest::State& guest_;
  std::stop_source closed_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_FAKE_CLIENT_H_
