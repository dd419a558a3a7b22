#include "agent/guest/service.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/guest/files.h"
#include "agent/guest/meminfo.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

constexpr std::uint32_t kProtocolVersion = 1;
constexpr auto kAnswerPause = std::chrono::milliseconds(10);
constexpr int kAnswerChecks = 200;

v1::HelloResponse Hello(std::uint32_t online_cpus) {
  v1::HelloResponse response;
  response.set_protocol_version(kProtocolVersion);
  response.set_agent_version(HUSK_AGENT_VERSION);
  utsname names{};
  if (uname(&names) == 0) response.set_kernel_release(static_cast<const char*>(names.release));
  const auto boot_id = ReadFile("/proc/sys/kernel/random/boot_id", 64);
  if (boot_id.ok()) response.set_guest_boot_id(std::string(Trim(*boot_id)));
  response.set_online_cpus(online_cpus);
  response.set_memory_total_bytes(MemoryTotalBytes());
  timespec up{};
  clock_gettime(CLOCK_BOOTTIME, &up);
  response.set_uptime_nanoseconds(static_cast<std::uint64_t>(up.tv_sec) * 1'000'000'000 +
                                  static_cast<std::uint64_t>(up.tv_nsec));
  return response;
}

}  // namespace

Service::Service(EventLoop& loop, Children& children, UniqueFd port, const Parts& parts)
    : loop_(loop),
      guest_(*parts.guest),
      volumes_(*parts.volumes),
      memory_mark_(loop, parts.memory, [this] { poller_.Changed(); }),
      size_(loop, parts.size, memory_mark_),
      poller_(loop, containers_, memory_mark_),
      crun_(loop, children, parts.crun, parts.crun_state),
      containers_(loop, children, crun_, *parts.roots, volumes_, parts.places, [this] { poller_.Changed(); }),
      stats_(loop, children,
             {.containers = &containers_,
              .roots = parts.roots,
              .volumes = parts.volumes,
              .size = &size_,
              .cgroup_root = parts.places.cgroup_root,
              .scratch = parts.scratch,
              .measure_command = parts.measure_command}),
      forwardings_(loop),
      channel_(
          loop, std::move(port),
          [this](const std::string& method, const std::string& payload, const Channel::Answer& answer) {
            Handle(method, payload, answer);
          },
          [this] {
            poller_.Forget();
            containers_.ForgetWriters();
            forwardings_.Forget();
          }) {
  RegisterAll();
}

Status Service::Start() {
  loop_.BeforeSleep([this] {
    poller_.BeforeSleep();
    forwardings_.BeforeSleep();
  });
  return channel_.Start();
}

template <typename Request, typename Response, typename Call>
void Service::Register(const std::string& name, Call call) {
  methods_[name] = [call](const std::string& payload, const Channel::Answer& answer) {
    Request request;
    if (!request.ParseFromString(payload)) return answer(absl::InvalidArgumentError("the request cannot be parsed"));
    call(request, [answer](StatusOr<Response> response) {
      if (!response.ok()) return answer(response.status());
      answer(Payload(response->SerializeAsString()));
    });
  };
}

void Service::RegisterAll() {
  Register<v1::HelloRequest, v1::HelloResponse>(
      "Hello", [this](const auto&, const auto& done) { done(Hello(size_.OnlineCpus())); });
  Register<v1::ResizeGuestRequest, v1::ResizeGuestResponse>(
      "ResizeGuest", [this](const v1::ResizeGuestRequest& request, const auto& done) { size_.Resize(request, done); });
  Register<v1::ConfigureSandboxRequest, v1::ConfigureSandboxResponse>(
      "ConfigureSandbox", [this](const v1::ConfigureSandboxRequest& request, const auto& done) {
        guest_.ConfigureSandbox(request.config(), [done](const Status& status) {
          if (!status.ok()) return done(status);
          done(v1::ConfigureSandboxResponse());
        });
      });
  Register<v1::ShutdownRequest, v1::ShutdownResponse>("Shutdown", [this](const auto&, const auto& done) {
    done(v1::ShutdownResponse());
    PowerOffWhenAnswered(kAnswerChecks);
  });
  Register<v1::StatsRequest, v1::StatsResponse>("Stats",
                                                [this](const auto&, const auto& done) { stats_.Answer(done); });
  RegisterContainerMethods();
  RegisterProcessMethods();
  RegisterVolumeMethods();
  RegisterForwardingMethods();
}

void Service::RegisterContainerMethods() {
  Register<v1::CreateContainerRequest, v1::CreateContainerResponse>(
      "CreateContainer", [this](const v1::CreateContainerRequest& request, const auto& done) {
        containers_.Create(request.spec(), done);
      });
  Register<v1::StartContainerRequest, v1::StartContainerResponse>(
      "StartContainer", [this](const v1::StartContainerRequest& request, const auto& done) {
        containers_.Start(request.container_id(), done);
      });
  Register<v1::SignalContainerRequest, v1::SignalContainerResponse>(
      "SignalContainer", [this](const auto& request, const auto& done) { containers_.Signal(request, done); });
  Register<v1::UpdateResourcesRequest, v1::UpdateResourcesResponse>(
      "UpdateResources", [this](const auto& request, const auto& done) { containers_.UpdateResources(request, done); });
  Register<v1::RemoveContainerRequest, v1::RemoveContainerResponse>(
      "RemoveContainer", [this](const v1::RemoveContainerRequest& request, const auto& done) {
        containers_.Remove(request.container_id(), done);
      });
  Register<v1::ListProcessesRequest, v1::ListProcessesResponse>(
      "ListProcesses", [this](const auto&, const auto& done) { done(containers_.List()); });
}

void Service::RegisterProcessMethods() {
  Register<v1::ExecRequest, v1::ExecResponse>(
      "Exec", [this](const auto& request, const auto& done) { containers_.Exec(request, done); });
  Register<v1::SignalExecRequest, v1::SignalExecResponse>(
      "SignalExec", [this](const auto& request, const auto& done) { containers_.SignalExec(request, done); });
  Register<v1::RemoveExecRequest, v1::RemoveExecResponse>(
      "RemoveExec", [this](const auto& request, const auto& done) { containers_.RemoveExec(request, done); });
  methods_["Poll"] = [this](const std::string& payload, const Channel::Answer& answer) {
    v1::PollRequest request;
    if (!request.ParseFromString(payload)) return answer(absl::InvalidArgumentError("the request cannot be parsed"));
    poller_.Poll(std::move(request), answer);
  };
  Register<v1::WriteStdinRequest, v1::WriteStdinResponse>(
      "WriteStdin", [this](const v1::WriteStdinRequest& request, const auto& done) {
        Process* const process = containers_.Find(request.container_id(), request.exec_id());
        if (process == nullptr) return done(absl::NotFoundError("no such process"));
        process->io.standard_input().Write(request.offset(), request.data(), request.close(),
                                           [done](StatusOr<std::uint64_t> offset) {
                                             if (!offset.ok()) return done(offset.status());
                                             v1::WriteStdinResponse response;
                                             response.set_offset(*offset);
                                             done(std::move(response));
                                           });
      });
  Register<v1::ResizeTerminalRequest, v1::ResizeTerminalResponse>(
      "ResizeTerminal", [this](const v1::ResizeTerminalRequest& request, const auto& done) {
        Process* const process = containers_.Find(request.container_id(), request.exec_id());
        if (process == nullptr) return done(absl::NotFoundError("no such process"));
        const Status status = process->io.Resize(request.columns(), request.rows());
        if (!status.ok()) return done(status);
        done(v1::ResizeTerminalResponse());
      });
}

void Service::RegisterVolumeMethods() {
  // A status as the answer of a method that says nothing else.
  const auto answer = [](const Status& status, const auto& done, const auto& response) {
    if (!status.ok()) return done(status);
    done(response);
  };
  Register<v1::CreateVolumeRequest, v1::CreateVolumeResponse>(
      "CreateVolume", [this, answer](const v1::CreateVolumeRequest& request, const auto& done) {
        answer(volumes_.Create(request), done, v1::CreateVolumeResponse());
      });
  Register<v1::ChangeVolumeRequest, v1::ChangeVolumeResponse>(
      "ChangeVolume", [this, answer](const v1::ChangeVolumeRequest& request, const auto& done) {
        answer(volumes_.Change(request), done, v1::ChangeVolumeResponse());
      });
  Register<v1::ReadVolumeRequest, v1::ReadVolumeResponse>(
      "ReadVolume", [this](const v1::ReadVolumeRequest& request, const auto& done) { done(volumes_.Read(request)); });
  Register<v1::LookAgainRequest, v1::LookAgainResponse>(
      "LookAgain", [this, answer](const v1::LookAgainRequest& request, const auto& done) {
        answer(volumes_.LookAgain(request), done, v1::LookAgainResponse());
      });
  Register<v1::RemoveVolumeRequest, v1::RemoveVolumeResponse>(
      "RemoveVolume", [this, answer](const v1::RemoveVolumeRequest& request, const auto& done) {
        answer(volumes_.Remove(request.volume_id()), done, v1::RemoveVolumeResponse());
      });
}

void Service::RegisterForwardingMethods() {
  Register<v1::OpenForwardingRequest, v1::OpenForwardingResponse>(
      "OpenForwarding", [this](const v1::OpenForwardingRequest& request, const auto& done) {
        const Status status = forwardings_.Open(request.forwarding_id());
        if (!status.ok()) return done(status);
        done(v1::OpenForwardingResponse());
      });
  Register<v1::CloseForwardingRequest, v1::CloseForwardingResponse>(
      "CloseForwarding", [this](const v1::CloseForwardingRequest& request, const auto& done) {
        forwardings_.Close(request.forwarding_id());
        done(v1::CloseForwardingResponse());
      });
  Register<v1::SendForwardingRequest, v1::SendForwardingResponse>(
      "SendForwarding",
      [this](const v1::SendForwardingRequest& request, const auto& done) { done(forwardings_.Send(request)); });
  Register<v1::PollForwardingRequest, v1::PollForwardingResponse>(
      "PollForwarding",
      [this](const v1::PollForwardingRequest& request, const auto& done) { forwardings_.Poll(request, done); });
}

void Service::Handle(const std::string& method, const std::string& payload, const Channel::Answer& answer) {
  const auto found = methods_.find(method);
  if (found == methods_.end()) return answer(absl::UnimplementedError(absl::StrCat("unknown method ", method)));
  found->second(payload, answer);
}

void Service::PowerOffWhenAnswered(int checks_left) {
  // One pause at least: QEMU takes the bytes over after write(2) has returned.
  loop_.After(kAnswerPause, [this, checks_left] {
    if (channel_.idle() || checks_left == 0) return guest_.PowerOff();
    PowerOffWhenAnswered(checks_left - 1);
  });
}

}  // namespace husk::agent
