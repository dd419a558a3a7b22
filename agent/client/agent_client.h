// huskd's side of the agent channel: typed calls to the husk-agent of one VM.
#ifndef HUSK_AGENT_CLIENT_AGENT_CLIENT_H_
#define HUSK_AGENT_CLIENT_AGENT_CLIENT_H_

#include <memory>
#include <string>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// The API of one guest. Blocking and thread safe: calls of several threads share the channel and do not wait for each
// other. Everything in a response comes from a hostile guest: check before use.
//
// Errors, besides what agent.proto says of a call: CANCELLED and DEADLINE_EXCEEDED from the context; UNAVAILABLE when
// the channel is down and stayed down (the VM is gone, or the agent). A broken channel is reconnected, and the call
// repeated, as long as the context lasts and the socket's listener exists: calls are idempotent.
class AgentClient {
 public:
  virtual ~AgentClient() = default;

  virtual StatusOr<v1::HelloResponse> Hello(const Context& context) = 0;
  virtual Status ConfigureSandbox(const Context& context, const v1::ConfigureSandboxRequest& request) = 0;
  virtual Status Shutdown(const Context& context) = 0;

  virtual Status CreateVolume(const Context& context, const v1::CreateVolumeRequest& request) = 0;
  virtual Status ChangeVolume(const Context& context, const v1::ChangeVolumeRequest& request) = 0;
  virtual StatusOr<v1::ReadVolumeResponse> ReadVolume(const Context& context, const v1::ReadVolumeRequest& request) = 0;
  virtual Status LookAgain(const Context& context, const v1::LookAgainRequest& request) = 0;
  virtual Status RemoveVolume(const Context& context, const v1::RemoveVolumeRequest& request) = 0;

  virtual StatusOr<v1::CreateContainerResponse> CreateContainer(const Context& context,
                                                                const v1::CreateContainerRequest& request) = 0;
  virtual StatusOr<v1::StartContainerResponse> StartContainer(const Context& context,
                                                              const v1::StartContainerRequest& request) = 0;
  virtual Status SignalContainer(const Context& context, const v1::SignalContainerRequest& request) = 0;
  virtual Status RemoveContainer(const Context& context, const v1::RemoveContainerRequest& request) = 0;
  virtual Status UpdateResources(const Context& context, const v1::UpdateResourcesRequest& request) = 0;
  virtual StatusOr<v1::ResizeGuestResponse> ResizeGuest(const Context& context,
                                                        const v1::ResizeGuestRequest& request) = 0;
  virtual StatusOr<v1::ListProcessesResponse> ListProcesses(const Context& context) = 0;

  virtual StatusOr<v1::ExecResponse> Exec(const Context& context, const v1::ExecRequest& request) = 0;
  virtual Status SignalExec(const Context& context, const v1::SignalExecRequest& request) = 0;
  virtual Status RemoveExec(const Context& context, const v1::RemoveExecRequest& request) = 0;

  virtual StatusOr<v1::PollResponse> Poll(const Context& context, const v1::PollRequest& request) = 0;
  virtual StatusOr<v1::WriteStdinResponse> WriteStdin(const Context& context, const v1::WriteStdinRequest& request) = 0;
  virtual Status ResizeTerminal(const Context& context, const v1::ResizeTerminalRequest& request) = 0;

  virtual Status OpenForwarding(const Context& context, const v1::OpenForwardingRequest& request) = 0;
  virtual Status CloseForwarding(const Context& context, const v1::CloseForwardingRequest& request) = 0;
  virtual StatusOr<v1::SendForwardingResponse> SendForwarding(const Context& context,
                                                              const v1::SendForwardingRequest& request) = 0;
  virtual StatusOr<v1::PollForwardingResponse> PollForwarding(const Context& context,
                                                              const v1::PollForwardingRequest& request) = 0;

  virtual StatusOr<v1::StatsResponse> Stats(const Context& context) = 0;

  // Ends the channel: calls in flight and later ones fail with UNAVAILABLE. The guest is not told.
  virtual void Close() = 0;
};

// Makes clients; one per huskd. A fake stands in for it in the tests of sandbox/.
class AgentConnector {
 public:
  virtual ~AgentConnector() = default;
  // `socket_path`: the unix socket on which QEMU listens for the other end of the virtio-serial port. Returns at once;
  // the first call connects, and waits, within its context, for the agent to come up.
  virtual std::unique_ptr<AgentClient> Connect(const std::string& socket_path) = 0;
};

// The real one, with one I/O thread for all channels.
std::unique_ptr<AgentConnector> NewTtrpcConnector();

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_AGENT_CLIENT_H_
