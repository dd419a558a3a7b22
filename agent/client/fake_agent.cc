#include "agent/client/fake_agent.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <stop_token>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::agent {
namespace {

using ProcessKey = std::pair<std::string, std::string>;  // container id, exec id

constexpr std::size_t kDefaultMaximumPollBytes = std::size_t{1} << 20;
constexpr auto kPatience = std::chrono::seconds(30);

struct Stream {
  std::string bytes;       // from `base` on
  std::uint64_t base = 0;  // everything before it was acknowledged
  bool closed = false;
  [[nodiscard]] std::uint64_t end() const { return base + bytes.size(); }
};

struct Process {
  FakeProgram program;
  v1::ProcessStatus status;
  Stream standard_output;
  Stream standard_error;
  std::string standard_input;
  std::vector<std::uint32_t> signals;
};

struct Fault {
  Status status;
  int times = 0;
  bool after_effect = false;
};

std::int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Stream& StreamOf(Process& process, v1::StreamKind kind) {
  return kind == v1::STDERR ? process.standard_error : process.standard_output;
}

Status NoContainer(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("there is no container ", id));
}

}  // namespace

struct FakeGuest::State {
  // One call's passage: counted, held up by Block, failed by FailNext. Then `effect`, under the lock.
  template <typename Effect>
  Status Call(const Context& context, const std::string& method, Effect effect) {
    const Waker waker(context, *this);
    const MutexLock lock(mutex);
    HUSK_RETURN_IF_ERROR(Enter(context, method));
    HUSK_RETURN_IF_ERROR(effect());
    changed.NotifyAll();
    return TakeFault(method, /*after_effect=*/true);
  }

  Status Enter(const Context& context, const std::string& method) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    HUSK_RETURN_IF_ERROR(CheckCall(context));
    if (method != "Poll" && method != "WriteStdin") calls.push_back(method);
    ++counts[method];
    changed.NotifyAll();
    while (blocked.contains(method)) {
      HUSK_RETURN_IF_ERROR(CheckCall(context));
      changed.WaitUntil(mutex, WaitLimit(context));
    }
    HUSK_RETURN_IF_ERROR(CheckCall(context));
    return TakeFault(method, /*after_effect=*/false);
  }

  Status CheckCall(const Context& context) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    HUSK_RETURN_IF_ERROR(context.Check());
    if (channel_down) return absl::UnavailableError("the agent's channel is down");
    if (shut_down) return absl::UnavailableError("the guest is shut down");
    return absl::OkStatus();
  }

  Status TakeFault(const std::string& method, bool after_effect) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto fault = std::find_if(faults.begin(), faults.end(), [&](const auto& candidate) {
      return candidate.first == method && candidate.second.after_effect == after_effect;
    });
    if (fault == faults.end()) return absl::OkStatus();
    Status status = fault->second.status;
    if (--fault->second.times <= 0) faults.erase(fault);
    return status;
  }

  Process* Find(const std::string& container_id, const std::string& exec_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto found = processes.find({container_id, exec_id});
    return found == processes.end() ? nullptr : &found->second;
  }

  void Run(Process& process, FakeProgram program) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    process.program = std::move(program);
    process.status.set_started_at(Now());
    if (!process.program.start_error.empty()) {
      process.status.set_start_error(process.program.start_error);
      End(process, 128, false, true);
      return;
    }
    process.status.set_state(v1::RUNNING);
    process.status.set_pid(next_pid++);
    process.standard_output.bytes += process.program.standard_output;
    process.standard_error.bytes += process.program.standard_error;
    if (process.program.exit_code) End(process, *process.program.exit_code, false, true);
  }

  static void End(Process& process, std::int32_t exit_code, bool oom_killed, bool close_streams) {
    process.status.set_state(v1::EXITED);
    process.status.set_exit_code(exit_code);
    process.status.set_oom_killed(oom_killed);
    process.status.set_finished_at(Now());
    if (close_streams) process.standard_output.closed = process.standard_error.closed = true;
  }

  static void Signal(Process& process, std::uint32_t signal) {
    if (process.status.state() != v1::RUNNING) return;
    process.signals.push_back(signal);
    if (signal == SIGKILL || !process.program.ignored_signals.contains(signal)) {
      End(process, 128 + static_cast<std::int32_t>(signal), false, true);
    }
  }

  static Context::Clock::time_point WaitLimit(const Context& context) {
    // A deadline of time_point::max() overflows in condition_variable's conversion of clocks.
    return std::min(context.deadline(), Context::Clock::now() + std::chrono::hours(1));
  }

  // Wakes the waiters when the context is cancelled. Made and destroyed without the lock.
  struct Waker {
    struct Notify {
      State* state;
      void operator()() const {
        const MutexLock lock(state->mutex);
        state->changed.NotifyAll();
      }
    };
    Waker(const Context& context, State& state) : callback(context.stop_token(), Notify{&state}) {}
    std::stop_callback<Notify> callback;
  };

  Mutex mutex;
  ConditionVariable changed;
  std::function<FakeProgram(const v1::ContainerSpec&)> container_program ABSL_GUARDED_BY(mutex);
  std::function<FakeProgram(const v1::ExecRequest&)> exec_program ABSL_GUARDED_BY(mutex);
  std::function<void(v1::PollResponse&)> poll_filter ABSL_GUARDED_BY(mutex);
  std::vector<std::pair<std::string, Fault>> faults ABSL_GUARDED_BY(mutex);
  std::set<std::string> blocked ABSL_GUARDED_BY(mutex);
  bool channel_down ABSL_GUARDED_BY(mutex) = false;
  bool shut_down ABSL_GUARDED_BY(mutex) = false;
  std::uint32_t boot ABSL_GUARDED_BY(mutex) = 1;
  std::uint32_t next_pid ABSL_GUARDED_BY(mutex) = 100;
  std::vector<std::string> calls ABSL_GUARDED_BY(mutex);
  std::map<std::string, int> counts ABSL_GUARDED_BY(mutex);
  std::optional<v1::SandboxConfig> sandbox ABSL_GUARDED_BY(mutex);
  std::map<std::string, v1::ContainerSpec> containers ABSL_GUARDED_BY(mutex);
  std::map<ProcessKey, Process> processes ABSL_GUARDED_BY(mutex);
};

// ---- the client -----------------------------------------------------------------------------------------------------

class FakeAgentClient : public AgentClient {
 public:
  explicit FakeAgentClient(FakeGuest::State& guest) : guest_(guest) {}
  ~FakeAgentClient() override { Close(); }

  StatusOr<v1::HelloResponse> Hello(const Context& context) override;
  Status ConfigureSandbox(const Context& context, const v1::ConfigureSandboxRequest& request) override;
  Status Shutdown(const Context& context) override;
  Status CreateContainer(const Context& context, const v1::CreateContainerRequest& request) override;
  StatusOr<v1::StartContainerResponse> StartContainer(const Context& context,
                                                      const v1::StartContainerRequest& request) override;
  Status SignalContainer(const Context& context, const v1::SignalContainerRequest& request) override;
  Status RemoveContainer(const Context& context, const v1::RemoveContainerRequest& request) override;
  StatusOr<v1::ListProcessesResponse> ListProcesses(const Context& context) override;
  StatusOr<v1::ExecResponse> Exec(const Context& context, const v1::ExecRequest& request) override;
  Status SignalExec(const Context& context, const v1::SignalExecRequest& request) override;
  Status RemoveExec(const Context& context, const v1::RemoveExecRequest& request) override;
  StatusOr<v1::PollResponse> Poll(const Context& context, const v1::PollRequest& request) override;
  StatusOr<v1::WriteStdinResponse> WriteStdin(const Context& context, const v1::WriteStdinRequest& request) override;
  Status ResizeTerminal(const Context& context, const v1::ResizeTerminalRequest& request) override;
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

  FakeGuest::State& guest_;
  std::stop_source closed_;
};

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

Status FakeAgentClient::CreateContainer(const Context& context, const v1::CreateContainerRequest& request) {
  return Call(context, "CreateContainer", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    const v1::ContainerSpec& spec = request.spec();
    if (spec.id().empty()) return absl::InvalidArgumentError("the container has no id");
    if (!guest_.containers.emplace(spec.id(), spec).second) return absl::OkStatus();
    v1::ProcessStatus& status = guest_.processes[{spec.id(), ""}].status;
    status.set_container_id(spec.id());
    status.set_state(v1::CREATED);
    return absl::OkStatus();
  });
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
    Process* process = guest_.Find(request.container_id(), "");
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
    Process* first = guest_.Find(request.container_id(), "");
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
    const Process* container = guest_.Find(request.container_id(), "");
    if (container == nullptr) return NoContainer(request.container_id());
    Process* process = guest_.Find(request.container_id(), request.exec_id());
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
    Process* process = guest_.Find(request.container_id(), request.exec_id());
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
  std::size_t room = request.maximum_bytes() == 0 ? kDefaultMaximumPollBytes : request.maximum_bytes();
  for (const v1::StreamCursor& cursor : request.cursors()) {
    Process* process = guest_.Find(cursor.container_id(), cursor.exec_id());
    if (process == nullptr) {
      v1::ProcessRef& unknown = *response.add_unknown();
      unknown.set_container_id(cursor.container_id());
      unknown.set_exec_id(cursor.exec_id());
      continue;
    }
    Stream& stream = StreamOf(*process, cursor.kind());
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
    const Process* process = guest_.Find(watched.container_id(), watched.exec_id());
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
    Process* process = guest_.Find(request.container_id(), request.exec_id());
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

// ---- the guest's scripting ------------------------------------------------------------------------------------------

FakeGuest::FakeGuest() : state_(std::make_unique<State>()) {}
FakeGuest::~FakeGuest() = default;

void FakeGuest::SetContainerProgram(std::function<FakeProgram(const v1::ContainerSpec&)> program) {
  const MutexLock lock(state_->mutex);
  state_->container_program = std::move(program);
}

void FakeGuest::SetExecProgram(std::function<FakeProgram(const v1::ExecRequest&)> program) {
  const MutexLock lock(state_->mutex);
  state_->exec_program = std::move(program);
}

bool FakeGuest::Write(const std::string& container_id, const std::string& exec_id, v1::StreamKind kind,
                      const std::string& data) {
  const MutexLock lock(state_->mutex);
  Process* process = state_->Find(container_id, exec_id);
  if (process == nullptr || process->status.state() == v1::CREATED || StreamOf(*process, kind).closed) return false;
  StreamOf(*process, kind).bytes += data;
  state_->changed.NotifyAll();
  return true;
}

bool FakeGuest::Exit(const std::string& container_id, const std::string& exec_id, std::int32_t exit_code,
                     bool oom_killed, bool close_streams) {
  const MutexLock lock(state_->mutex);
  Process* process = state_->Find(container_id, exec_id);
  if (process == nullptr || process->status.state() != v1::RUNNING) return false;
  State::End(*process, exit_code, oom_killed, close_streams);
  state_->changed.NotifyAll();
  return true;
}

bool FakeGuest::CloseStreams(const std::string& container_id, const std::string& exec_id) {
  const MutexLock lock(state_->mutex);
  Process* process = state_->Find(container_id, exec_id);
  if (process == nullptr) return false;
  process->standard_output.closed = process->standard_error.closed = true;
  state_->changed.NotifyAll();
  return true;
}

void FakeGuest::FailNext(const std::string& method, const Status& status, int times) {
  const MutexLock lock(state_->mutex);
  state_->faults.emplace_back(method, Fault{.status = status, .times = times});
}

void FakeGuest::FailNextAfterEffect(const std::string& method, const Status& status) {
  const MutexLock lock(state_->mutex);
  state_->faults.emplace_back(method, Fault{.status = status, .times = 1, .after_effect = true});
}

void FakeGuest::Block(const std::string& method) {
  const MutexLock lock(state_->mutex);
  state_->blocked.insert(method);
}

void FakeGuest::Release(const std::string& method) {
  const MutexLock lock(state_->mutex);
  state_->blocked.erase(method);
  state_->changed.NotifyAll();
}

void FakeGuest::SetChannelDown(bool down) {
  const MutexLock lock(state_->mutex);
  state_->channel_down = down;
  state_->changed.NotifyAll();
}

void FakeGuest::Reboot() {
  const MutexLock lock(state_->mutex);
  ++state_->boot;
  state_->shut_down = false;
  state_->sandbox.reset();
  state_->containers.clear();
  state_->processes.clear();
  state_->changed.NotifyAll();
}

void FakeGuest::SetPollFilter(std::function<void(v1::PollResponse&)> filter) {
  const MutexLock lock(state_->mutex);
  state_->poll_filter = std::move(filter);
  state_->changed.NotifyAll();
}

std::vector<std::string> FakeGuest::calls() const {
  const MutexLock lock(state_->mutex);
  return state_->calls;
}

int FakeGuest::call_count(const std::string& method) const {
  const MutexLock lock(state_->mutex);
  return state_->counts[method];
}

bool FakeGuest::WaitForCalls(const std::string& method, int count) const {
  const auto until = Context::Clock::now() + kPatience;
  const MutexLock lock(state_->mutex);
  while (state_->counts[method] < count) {
    if (!state_->changed.WaitUntil(state_->mutex, until) && Context::Clock::now() >= until) return false;
  }
  return true;
}

std::optional<v1::SandboxConfig> FakeGuest::sandbox_config() const {
  const MutexLock lock(state_->mutex);
  return state_->sandbox;
}

std::vector<std::string> FakeGuest::container_ids() const {
  const MutexLock lock(state_->mutex);
  std::vector<std::string> ids;
  for (const auto& [id, spec] : state_->containers) ids.push_back(id);
  return ids;
}

std::optional<v1::ContainerSpec> FakeGuest::container_spec(const std::string& container_id) const {
  const MutexLock lock(state_->mutex);
  const auto found = state_->containers.find(container_id);
  return found == state_->containers.end() ? std::nullopt : std::optional(found->second);
}

std::vector<std::string> FakeGuest::exec_ids(const std::string& container_id) const {
  const MutexLock lock(state_->mutex);
  std::vector<std::string> ids;
  for (const auto& [key, process] : state_->processes) {
    if (key.first == container_id && !key.second.empty()) ids.push_back(key.second);
  }
  return ids;
}

std::optional<v1::ProcessStatus> FakeGuest::process(const std::string& container_id, const std::string& exec_id) const {
  const MutexLock lock(state_->mutex);
  const Process* process = state_->Find(container_id, exec_id);
  return process == nullptr ? std::nullopt : std::optional(process->status);
}

std::vector<std::uint32_t> FakeGuest::signals(const std::string& container_id, const std::string& exec_id) const {
  const MutexLock lock(state_->mutex);
  const Process* process = state_->Find(container_id, exec_id);
  return process == nullptr ? std::vector<std::uint32_t>() : process->signals;
}

std::string FakeGuest::received_stdin(const std::string& container_id, const std::string& exec_id) const {
  const MutexLock lock(state_->mutex);
  const Process* process = state_->Find(container_id, exec_id);
  return process == nullptr ? std::string() : process->standard_input;
}

bool FakeGuest::shut_down() const {
  const MutexLock lock(state_->mutex);
  return state_->shut_down;
}

// ---- the connector --------------------------------------------------------------------------------------------------

FakeAgentConnector::FakeAgentConnector() = default;
FakeAgentConnector::~FakeAgentConnector() = default;

std::unique_ptr<AgentClient> FakeAgentConnector::Connect(const std::string& socket_path) {
  return std::make_unique<FakeAgentClient>(*guest(socket_path).state_);
}

FakeGuest& FakeAgentConnector::guest(const std::string& socket_path) {
  const MutexLock lock(mutex_);
  std::unique_ptr<FakeGuest>& guest = guests_[socket_path];
  if (!guest) {
    guest = std::make_unique<FakeGuest>();
    if (setup_) setup_(*guest);
  }
  return *guest;
}

std::vector<std::string> FakeAgentConnector::socket_paths() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> paths;
  for (const auto& [path, guest] : guests_) paths.push_back(path);
  return paths;
}

void FakeAgentConnector::SetGuestSetup(std::function<void(FakeGuest&)> setup) {
  const MutexLock lock(mutex_);
  setup_ = std::move(setup);
}

}  // namespace husk::agent
