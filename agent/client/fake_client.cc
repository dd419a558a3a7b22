// The client of a fake guest: each method's effect on the guest's state.
#include "agent/client/fake_client.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::agent {
namespace {

constexpr std::size_t kDefaultMaximumPollBytes = std::size_t{1} << 20;

Status NoContainer(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("there is no container ", id));
}

}  // namespace

StatusOr<v1::HelloResponse> FakeAgentClient::Hello(const Context& context) {
  v1::HelloResponse response;
  HUSK_RETURN_IF_ERROR(Call(context, "Hello", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    response.set_protocol_version(1);
    response.set_agent_version("fake");
    response.set_kernel_release("6.1.0-fake");
    response.set_guest_boot_id(absl::StrCat("boot-", guest_.boot));
    response.set_online_cpus(1);
    response.set_memory_total_bytes(std::uint64_t{256} << 20);
    response.set_uptime_nanoseconds(1);
    return absl::OkStatus();
  }));
  return response;
}

Status FakeAgentClient::ConfigureSandbox(const Context& context, const v1::ConfigureSandboxRequest& request) {
  return Call(context, "ConfigureSandbox", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    if (guest_.sandbox && guest_.sandbox->SerializeAsString() != request.config().SerializeAsString()) {
      return absl::AlreadyExistsError("the sandbox is configured otherwise");
    }
    guest_.sandbox = request.config();
    return absl::OkStatus();
  });
}

Status FakeAgentClient::Shutdown(const Context& context) {
  return Call(context, "Shutdown", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    guest_.shut_down = true;
    return absl::OkStatus();
  });
}

Status FakeAgentClient::CreateVolume(const Context& context, const v1::CreateVolumeRequest& request) {
  return Call(context, "CreateVolume", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const auto [volume, added] = guest_.volumes.try_emplace(request.volume_id());
    if (added && request.single_file()) volume->second[""] = "";
    return absl::OkStatus();
  });
}

Status FakeAgentClient::ChangeVolume(const Context& context, const v1::ChangeVolumeRequest& request) {
  return Call(context, "ChangeVolume", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    const auto volume = guest_.volumes.find(request.volume_id());
    if (volume == guest_.volumes.end()) return absl::NotFoundError("there is no such volume");
    for (const v1::FileOperation& operation : request.operations()) guest_.Apply(operation, volume->second);
    return absl::OkStatus();
  });
}

StatusOr<v1::ReadVolumeResponse> FakeAgentClient::ReadVolume(const Context& context,
                                                             const v1::ReadVolumeRequest& request) {
  v1::ReadVolumeResponse response;
  HUSK_RETURN_IF_ERROR(Call(context, "ReadVolume", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    const auto volume = guest_.volumes.find(request.volume_id());
    if (volume == guest_.volumes.end()) return absl::NotFoundError("there is no such volume");
    const std::string& file = volume->second[""];
    if (request.offset() < file.size()) response.set_data(file.substr(request.offset(), request.maximum_bytes()));
    return absl::OkStatus();
  }));
  return response;
}

Status FakeAgentClient::LookAgain(const Context& context, const v1::LookAgainRequest& request) {
  return Call(context, "LookAgain", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    const bool present = guest_.volumes.contains(request.volume_id());
    return present ? absl::OkStatus() : absl::NotFoundError("there is no such volume");
  });
}

Status FakeAgentClient::RemoveVolume(const Context& context, const v1::RemoveVolumeRequest& request) {
  return Call(context, "RemoveVolume", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    guest_.volumes.erase(request.volume_id());
    return absl::OkStatus();
  });
}

StatusOr<v1::CreateContainerResponse> FakeAgentClient::CreateContainer(const Context& context,
                                                                       const v1::CreateContainerRequest& request) {
  // The fake image has no users: numbers are taken as they are.
  v1::CreateContainerResponse response;
  response.set_uid(static_cast<std::uint32_t>(request.spec().user().uid()));
  response.set_gid(static_cast<std::uint32_t>(request.spec().user().gid()));
  *response.mutable_supplemental_gids() = request.spec().user().supplemental_gids();
  HUSK_RETURN_IF_ERROR(Call(context, "CreateContainer", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    const v1::ContainerSpec& spec = request.spec();
    if (spec.id().empty()) return absl::InvalidArgumentError("the container has no id");
    if (!guest_.containers.emplace(spec.id(), spec).second) return absl::OkStatus();
    v1::ProcessStatus& status = guest_.processes[{spec.id(), ""}].status;
    status.set_container_id(spec.id());
    status.set_state(v1::CREATED);
    return absl::OkStatus();
  }));
  return response;
}

StatusOr<v1::StartContainerResponse> FakeAgentClient::StartContainer(const Context& context,
                                                                     const v1::StartContainerRequest& request) {
  FakeProgram program;
  {
    std::function<FakeProgram(const v1::ContainerSpec&)> script;
    v1::ContainerSpec spec;
    {
      const MutexLock lock(guest_.mutex);
      script = guest_.container_program;
      const auto found = guest_.containers.find(request.container_id());
      if (found != guest_.containers.end()) spec = found->second;
    }
    if (script && !spec.id().empty()) program = script(spec);
  }
  v1::StartContainerResponse response;
  HUSK_RETURN_IF_ERROR(Call(context, "StartContainer", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    FakeProcess* process = guest_.Find(request.container_id(), "");
    if (process == nullptr) return NoContainer(request.container_id());
    if (process->status.state() == v1::CREATED) guest_.Run(*process, std::move(program));
    if (!process->status.start_error().empty()) return absl::FailedPreconditionError(process->status.start_error());
    response.set_pid(process->status.pid());
    response.set_started_at(process->status.started_at());
    return absl::OkStatus();
  }));
  return response;
}

Status FakeAgentClient::SignalContainer(const Context& context, const v1::SignalContainerRequest& request) {
  return Call(context, "SignalContainer", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    FakeProcess* first = guest_.Find(request.container_id(), "");
    if (first == nullptr) return NoContainer(request.container_id());
    guest_.Signal(*first, request.signal());
    if (!request.all_processes()) return absl::OkStatus();
    for (auto& [key, process] : guest_.processes) {
      if (key.first == request.container_id() && !key.second.empty()) guest_.Signal(process, request.signal());
    }
    return absl::OkStatus();
  });
}

Status FakeAgentClient::RemoveContainer(const Context& context, const v1::RemoveContainerRequest& request) {
  return Call(context, "RemoveContainer", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    guest_.containers.erase(request.container_id());
    std::erase_if(guest_.processes, [&](const auto& entry) { return entry.first.first == request.container_id(); });
    return absl::OkStatus();
  });
}

Status FakeAgentClient::UpdateResources(const Context& context, const v1::UpdateResourcesRequest& request) {
  return Call(context, "UpdateResources", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    if (guest_.Find(request.container_id(), "") == nullptr) return NoContainer(request.container_id());
    if (!request.check_only()) guest_.resources[request.container_id()] = request.resources_json();
    return absl::OkStatus();
  });
}

StatusOr<v1::ResizeGuestResponse> FakeAgentClient::ResizeGuest(const Context& context,
                                                               const v1::ResizeGuestRequest& request) {
  v1::ResizeGuestResponse response;
  HUSK_RETURN_IF_ERROR(Call(context, "ResizeGuest", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    if (request.cpus() == 0) return absl::InvalidArgumentError("cpus: is 0");
    guest_.resized = request;
    response.set_online_cpus(request.cpus());
    return absl::OkStatus();
  }));
  return response;
}

StatusOr<v1::ListProcessesResponse> FakeAgentClient::ListProcesses(const Context& context) {
  v1::ListProcessesResponse response;
  HUSK_RETURN_IF_ERROR(Call(context, "ListProcesses", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (const auto& [key, process] : guest_.processes) *response.add_processes() = process.status;
    return absl::OkStatus();
  }));
  return response;
}

StatusOr<v1::ExecResponse> FakeAgentClient::Exec(const Context& context, const v1::ExecRequest& request) {
  FakeProgram program;
  program.exit_code = 0;
  {
    std::function<FakeProgram(const v1::ExecRequest&)> script;
    {
      const MutexLock lock(guest_.mutex);
      script = guest_.exec_program;
    }
    if (script) program = script(request);
  }
  v1::ExecResponse response;
  HUSK_RETURN_IF_ERROR(Call(context, "Exec", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    const FakeProcess* container = guest_.Find(request.container_id(), "");
    if (container == nullptr) return NoContainer(request.container_id());
    FakeProcess* process = guest_.Find(request.container_id(), request.exec_id());
    if (process == nullptr) {
      if (container->status.state() != v1::RUNNING) return absl::FailedPreconditionError("the container does not run");
      if (!program.start_error.empty()) return absl::NotFoundError(program.start_error);
      process = &guest_.processes[{request.container_id(), request.exec_id()}];
      process->status.set_container_id(request.container_id());
      process->status.set_exec_id(request.exec_id());
      guest_.Run(*process, std::move(program));
    }
    response.set_pid(process->status.pid());
    return absl::OkStatus();
  }));
  return response;
}

Status FakeAgentClient::SignalExec(const Context& context, const v1::SignalExecRequest& request) {
  return Call(context, "SignalExec", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    FakeProcess* process = guest_.Find(request.container_id(), request.exec_id());
    if (process == nullptr) return absl::NotFoundError(absl::StrCat("there is no exec ", request.exec_id()));
    guest_.Signal(*process, request.signal());
    return absl::OkStatus();
  });
}

Status FakeAgentClient::RemoveExec(const Context& context, const v1::RemoveExecRequest& request) {
  return Call(context, "RemoveExec", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (!request.exec_id().empty()) guest_.processes.erase({request.container_id(), request.exec_id()});
    return absl::OkStatus();
  });
}

StatusOr<v1::PollResponse> FakeAgentClient::Poll(const Context& context, const v1::PollRequest& request) {
  const Context limited = context.WithStopToken(closed_.get_token());
  const auto until = Context::Clock::now() + std::chrono::milliseconds(request.wait_milliseconds());
  const FakeGuest::State::Waker waker(limited, guest_);
  const MutexLock lock(guest_.mutex);
  HUSK_RETURN_IF_ERROR(Translate(context, guest_.Enter(limited, "Poll")));
  v1::PollResponse response;
  for (;;) {
    response = Collect(request);
    if (guest_.poll_filter) guest_.poll_filter(response);
    if (response.ByteSizeLong() > 0 || Context::Clock::now() >= until) break;
    guest_.changed.WaitUntil(guest_.mutex, std::min(until, limited.deadline()));
    HUSK_RETURN_IF_ERROR(Translate(context, guest_.CheckCall(limited)));
  }
  HUSK_RETURN_IF_ERROR(guest_.TakeFault("Poll", /*after_effect=*/true));
  return response;
}

v1::PollResponse FakeAgentClient::Collect(const v1::PollRequest& request) {
  v1::PollResponse response;
  if (request.has_memory() && (guest_.memory.shortages() > request.memory().shortages() ||
                               guest_.memory.surpluses() > request.memory().surpluses())) {
    *response.mutable_memory() = guest_.memory;
    response.set_spare_memory_bytes(guest_.spare_memory);
  }
  std::size_t room = request.maximum_bytes() == 0 ? kDefaultMaximumPollBytes : request.maximum_bytes();
  for (const v1::StreamCursor& cursor : request.cursors()) {
    FakeProcess* process = guest_.Find(cursor.container_id(), cursor.exec_id());
    if (process == nullptr) {
      v1::ProcessRef& unknown = *response.add_unknown();
      unknown.set_container_id(cursor.container_id());
      unknown.set_exec_id(cursor.exec_id());
      continue;
    }
    FakeStream& stream = process->stream(cursor.kind());
    const std::uint64_t acknowledged = std::min(cursor.acknowledged(), stream.end());
    if (acknowledged > stream.base) {
      stream.bytes.erase(0, acknowledged - stream.base);
      stream.base = acknowledged;
      if (cursor.kind() == v1::STDERR) {
        process->status.set_stderr_offset(acknowledged);
      } else {
        process->status.set_stdout_offset(acknowledged);
      }
    }
    const std::uint64_t offset = std::clamp(cursor.offset(), stream.base, stream.end());
    const std::string_view data = std::string_view(stream.bytes).substr(offset - stream.base, room);
    const bool end = stream.closed && offset + data.size() == stream.end();
    if (data.empty() && !end) continue;
    room -= data.size();
    v1::StreamChunk& chunk = *response.add_chunks();
    chunk.set_container_id(cursor.container_id());
    chunk.set_exec_id(cursor.exec_id());
    chunk.set_kind(cursor.kind());
    chunk.set_offset(offset);
    chunk.set_data(std::string(data));
    chunk.set_end(end);
  }
  for (const v1::ProcessRef& watched : request.watch()) {
    const FakeProcess* process = guest_.Find(watched.container_id(), watched.exec_id());
    if (process == nullptr) {
      *response.add_unknown() = watched;
    } else if (process->status.state() == v1::EXITED) {
      *response.add_exits() = process->status;
    }
  }
  return response;
}

StatusOr<v1::WriteStdinResponse> FakeAgentClient::WriteStdin(const Context& context,
                                                             const v1::WriteStdinRequest& request) {
  v1::WriteStdinResponse response;
  HUSK_RETURN_IF_ERROR(Call(context, "WriteStdin", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    FakeProcess* process = guest_.Find(request.container_id(), request.exec_id());
    if (process == nullptr) return NoContainer(request.container_id());
    const std::uint64_t present = process->standard_input.size();
    if (request.offset() > present) return absl::OutOfRangeError(absl::StrCat("stdin is at ", present));
    const std::uint64_t skipped = std::min<std::uint64_t>(present - request.offset(), request.data().size());
    const std::string fresh = request.data().substr(skipped);
    process->standard_input += fresh;
    if (process->program.echoes_stdin && process->status.state() == v1::RUNNING) {
      process->standard_output.bytes += fresh;
      if (request.close()) guest_.End(*process, 0, false, true);
    }
    response.set_offset(process->standard_input.size());
    return absl::OkStatus();
  }));
  return response;
}

Status FakeAgentClient::ResizeTerminal(const Context& context, const v1::ResizeTerminalRequest& request) {
  return Call(context, "ResizeTerminal", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    return guest_.Find(request.container_id(), request.exec_id()) == nullptr ? NoContainer(request.container_id())
                                                                             : absl::OkStatus();
  });
}

StatusOr<v1::StatsResponse> FakeAgentClient::Stats(const Context& context) {
  v1::StatsResponse response;
  HUSK_RETURN_IF_ERROR(Call(context, "Stats", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    response = guest_.stats;
    return absl::OkStatus();
  }));
  return response;
}

}  // namespace husk::agent
