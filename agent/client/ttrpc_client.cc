// The real AgentClient and its connector: typed messages over a Channel.
#include <pthread.h>

#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include "absl/strings/str_cat.h"
#include "agent/client/agent_client.h"
#include "agent/client/call_observer.h"
#include "agent/client/channel.h"

namespace husk::agent {
namespace {

// Before every error. Whose agent it is stands where the error goes: users read it in the events of their pods, and a
// path on the node tells them nothing.
constexpr char kAgent[] = "the guest's agent: ";

// One thread for all channels. Ends with its last user.
class IoThread {
 public:
  IoThread() : work_(io_.get_executor()) {
    // The process's signals are for its main thread.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    thread_ = std::thread([this] { io_.run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(thread_.native_handle(), "agent-io");
  }
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;
  ~IoThread() {
    io_.stop();
    thread_.join();
  }

  boost::asio::io_context& io() { return io_; }

 private:
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

class TtrpcClient : public AgentClient {
 public:
  TtrpcClient(std::shared_ptr<IoThread> io, const std::string& socket_path, CallObserver observer)
      : observer_(std::move(observer)),
        io_(std::move(io)),
        channel_(std::make_shared<Channel>(io_->io(), socket_path)) {}
  TtrpcClient(const TtrpcClient&) = delete;
  TtrpcClient& operator=(const TtrpcClient&) = delete;
  ~TtrpcClient() override { channel_->Close(); }

  StatusOr<v1::HelloResponse> Hello(const Context& context) override {
    return Call<v1::HelloResponse>(context, "Hello", v1::HelloRequest());
  }
  Status ConfigureSandbox(const Context& context, const v1::ConfigureSandboxRequest& request) override {
    return Call<v1::ConfigureSandboxResponse>(context, "ConfigureSandbox", request).status();
  }
  Status Shutdown(const Context& context) override {
    return Call<v1::ShutdownResponse>(context, "Shutdown", v1::ShutdownRequest()).status();
  }
  Status CreateVolume(const Context& context, const v1::CreateVolumeRequest& request) override {
    return Call<v1::CreateVolumeResponse>(context, "CreateVolume", request).status();
  }
  Status ChangeVolume(const Context& context, const v1::ChangeVolumeRequest& request) override {
    return Call<v1::ChangeVolumeResponse>(context, "ChangeVolume", request).status();
  }
  StatusOr<v1::ReadVolumeResponse> ReadVolume(const Context& context, const v1::ReadVolumeRequest& request) override {
    return Call<v1::ReadVolumeResponse>(context, "ReadVolume", request);
  }
  Status LookAgain(const Context& context, const v1::LookAgainRequest& request) override {
    return Call<v1::LookAgainResponse>(context, "LookAgain", request).status();
  }
  Status RemoveVolume(const Context& context, const v1::RemoveVolumeRequest& request) override {
    return Call<v1::RemoveVolumeResponse>(context, "RemoveVolume", request).status();
  }
  StatusOr<v1::CreateContainerResponse> CreateContainer(const Context& context,
                                                        const v1::CreateContainerRequest& request) override {
    return Call<v1::CreateContainerResponse>(context, "CreateContainer", request);
  }
  StatusOr<v1::StartContainerResponse> StartContainer(const Context& context,
                                                      const v1::StartContainerRequest& request) override {
    return Call<v1::StartContainerResponse>(context, "StartContainer", request);
  }
  Status SignalContainer(const Context& context, const v1::SignalContainerRequest& request) override {
    return Call<v1::SignalContainerResponse>(context, "SignalContainer", request).status();
  }
  Status RemoveContainer(const Context& context, const v1::RemoveContainerRequest& request) override {
    return Call<v1::RemoveContainerResponse>(context, "RemoveContainer", request).status();
  }
  Status UpdateResources(const Context& context, const v1::UpdateResourcesRequest& request) override {
    return Call<v1::UpdateResourcesResponse>(context, "UpdateResources", request).status();
  }
  StatusOr<v1::ResizeGuestResponse> ResizeGuest(const Context& context,
                                                const v1::ResizeGuestRequest& request) override {
    return Call<v1::ResizeGuestResponse>(context, "ResizeGuest", request);
  }
  StatusOr<v1::ListProcessesResponse> ListProcesses(const Context& context) override {
    return Call<v1::ListProcessesResponse>(context, "ListProcesses", v1::ListProcessesRequest());
  }
  StatusOr<v1::ExecResponse> Exec(const Context& context, const v1::ExecRequest& request) override {
    return Call<v1::ExecResponse>(context, "Exec", request);
  }
  Status SignalExec(const Context& context, const v1::SignalExecRequest& request) override {
    return Call<v1::SignalExecResponse>(context, "SignalExec", request).status();
  }
  Status RemoveExec(const Context& context, const v1::RemoveExecRequest& request) override {
    return Call<v1::RemoveExecResponse>(context, "RemoveExec", request).status();
  }
  StatusOr<v1::PollResponse> Poll(const Context& context, const v1::PollRequest& request) override {
    return Call<v1::PollResponse>(context, "Poll", request);
  }
  StatusOr<v1::WriteStdinResponse> WriteStdin(const Context& context, const v1::WriteStdinRequest& request) override {
    return Call<v1::WriteStdinResponse>(context, "WriteStdin", request);
  }
  Status ResizeTerminal(const Context& context, const v1::ResizeTerminalRequest& request) override {
    return Call<v1::ResizeTerminalResponse>(context, "ResizeTerminal", request).status();
  }
  Status OpenForwarding(const Context& context, const v1::OpenForwardingRequest& request) override {
    return Call<v1::OpenForwardingResponse>(context, "OpenForwarding", request).status();
  }
  Status CloseForwarding(const Context& context, const v1::CloseForwardingRequest& request) override {
    return Call<v1::CloseForwardingResponse>(context, "CloseForwarding", request).status();
  }
  StatusOr<v1::SendForwardingResponse> SendForwarding(const Context& context,
                                                      const v1::SendForwardingRequest& request) override {
    return Call<v1::SendForwardingResponse>(context, "SendForwarding", request);
  }
  StatusOr<v1::PollForwardingResponse> PollForwarding(const Context& context,
                                                      const v1::PollForwardingRequest& request) override {
    return Call<v1::PollForwardingResponse>(context, "PollForwarding", request);
  }
  StatusOr<v1::StatsResponse> Stats(const Context& context) override {
    return Call<v1::StatsResponse>(context, "Stats", v1::StatsRequest());
  }
  void Close() override { channel_->Close(); }

 private:
  template <typename Response, typename Message>
  StatusOr<Response> Call(const Context& context, const std::string& method, const Message& message) {
    const auto begin = Context::Clock::now();
    StatusOr<std::string> payload = channel_->Request(context, method, message.SerializeAsString());
    if (observer_) observer_(method, Context::Clock::now() - begin, payload.status());
    if (!payload.ok()) return Annotate(payload.status(), absl::StrCat(kAgent, method));
    Response response;
    if (!response.ParseFromString(*payload)) {
      const std::string trouble = absl::StrCat(method, "'s answer cannot be read");
      channel_->Break(trouble);
      return absl::InternalError(absl::StrCat(kAgent, trouble));
    }
    return response;
  }

  const CallObserver observer_;
  // The channel's sockets and timers belong to the I/O thread's context: declared later, gone earlier.
  const std::shared_ptr<IoThread> io_;
  const std::shared_ptr<Channel> channel_;
};

class TtrpcConnector : public AgentConnector {
 public:
  explicit TtrpcConnector(CallObserver observer) : observer_(std::move(observer)) {}
  std::unique_ptr<AgentClient> Connect(const std::string& socket_path) override {
    return std::make_unique<TtrpcClient>(io_, socket_path, observer_);
  }

 private:
  const CallObserver observer_;
  const std::shared_ptr<IoThread> io_ = std::make_shared<IoThread>();
};

}  // namespace

std::unique_ptr<AgentConnector> NewTtrpcConnector() {
  return std::make_unique<TtrpcConnector>(nullptr);
}

std::unique_ptr<AgentConnector> NewObservedTtrpcConnector(CallObserver observer) {
  return std::make_unique<TtrpcConnector>(std::move(observer));
}

}  // namespace husk::agent
