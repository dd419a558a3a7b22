#include "sandbox/execution.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/id.h"
#include "sandbox/logging.h"

namespace husk::sandbox {
namespace {

using Clock = Context::Clock;
using std::chrono::milliseconds;

constexpr auto kPollWait = milliseconds(5000);
constexpr auto kCleanupTimeout = std::chrono::seconds(10);

}  // namespace

StatusOr<std::shared_ptr<agent::AgentClient>> ClientOfRunningContainer(Pod& pod, const std::string& container_id) {
  const auto status = pod.container_status(container_id);
  auto client = pod.client();
  if (!status) return absl::NotFoundError(absl::StrCat("there is no container ", container_id));
  if (status->state != ContainerState::kRunning || client == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("container ", container_id, " does not run"));
  }
  return client;
}

Execution::Execution(std::shared_ptr<agent::AgentClient> client, std::string container_id, Sink sink)
    : client_(std::move(client)), container_id_(std::move(container_id)), exec_id_(NewId()), sink_(std::move(sink)) {}

Status Execution::Start(const Context& context, const Options& options) {
  agent::v1::ExecRequest request;
  request.set_container_id(container_id_);
  request.set_exec_id(exec_id_);
  for (const std::string& argument : options.command) request.add_arguments(argument);
  request.set_tty(options.tty);
  request.set_stdin(options.standard_input);
  return client_->Exec(context, request).status();
}

Status Execution::Follow(const Context& context) {
  while (!exit_ || !(streams_[0].ended && streams_[1].ended)) {
    HUSK_RETURN_IF_ERROR(context.Check());
    if (drain_ && drain_->over()) break;
    HUSK_RETURN_IF_ERROR(PollOnce(context));
  }
  return absl::OkStatus();
}

void Execution::CleanUp(const Context& context) {
  const Context limited = context.Detached(kCleanupTimeout);
  if (!exit_) {
    agent::v1::SignalExecRequest kill;
    kill.set_container_id(container_id_);
    kill.set_exec_id(exec_id_);
    kill.set_signal(SIGKILL);
    client_->SignalExec(limited, kill).IgnoreError();
  }
  agent::v1::RemoveExecRequest remove;
  remove.set_container_id(container_id_);
  remove.set_exec_id(exec_id_);
  const Status removed = client_->RemoveExec(limited, remove);
  if (!removed.ok()) spdlog::warn("container={} forget exec {}: {}", container_id_, exec_id_, Words(removed));
}

agent::v1::PollRequest Execution::NextPoll() const {
  agent::v1::PollRequest request;
  for (const Stream& stream : streams_) {
    if (stream.ended) continue;
    agent::v1::StreamCursor& cursor = *request.add_cursors();
    cursor.set_container_id(container_id_);
    cursor.set_exec_id(exec_id_);
    cursor.set_kind(stream.kind);
    cursor.set_offset(stream.offset);
    cursor.set_acknowledged(stream.offset);
  }
  auto wait = kPollWait;
  if (drain_) {
    wait = std::clamp(std::chrono::ceil<milliseconds>(drain_->deadline() - Clock::now()), milliseconds(0), kPollWait);
  } else {
    agent::v1::ProcessRef& watch = *request.add_watch();
    watch.set_container_id(container_id_);
    watch.set_exec_id(exec_id_);
  }
  request.set_wait_milliseconds(static_cast<std::uint32_t>(wait.count()));
  return request;
}

Status Execution::PollOnce(const Context& context) {
  const agent::v1::PollRequest request = NextPoll();
  const auto asked_at = Clock::now();
  HUSK_ASSIGN_OR_RETURN(const agent::v1::PollResponse response, client_->Poll(context, request));
  const bool early = Clock::now() - asked_at < milliseconds(request.wait_milliseconds());
  if (response.unknown_size() > 0 && !exit_) {
    return absl::UnavailableError("the guest does not know the process any more");
  }
  std::size_t taken = 0;
  bool news = false;
  for (const auto& chunk : response.chunks()) {
    HUSK_ASSIGN_OR_RETURN(const bool fresh, Take(chunk));
    if (!fresh) continue;
    news = true;
    taken += chunk.data().size();
  }
  if (drain_ && news) drain_->Progress(taken);
  if (drain_ && !news) drain_->Idle();
  for (const auto& process : response.exits()) news |= Exited(process);
  const bool said_something = response.chunks_size() + response.exits_size() + response.unknown_size() > 0;
  // An agent that repeats itself, or says nothing at once, must not make this thread spin.
  return news || !(said_something || early) ? absl::OkStatus() : SleepFor(context, milliseconds(100));
}

StatusOr<bool> Execution::Take(const agent::v1::StreamChunk& chunk) {
  if (chunk.container_id() != container_id_ || chunk.exec_id() != exec_id_) return false;
  for (Stream& stream : streams_) {
    if (stream.kind != chunk.kind() || stream.ended || chunk.offset() > stream.offset) continue;
    const std::uint64_t known = stream.offset - chunk.offset();
    if (known > chunk.data().size()) continue;
    const std::string_view fresh = std::string_view(chunk.data()).substr(known);
    if (!fresh.empty()) HUSK_RETURN_IF_ERROR(Tell(stream.told_as, fresh));
    stream.offset += fresh.size();
    stream.ended = chunk.end();
    return !fresh.empty() || stream.ended;
  }
  return false;
}

Status Execution::Tell(OutputKind kind, std::string_view bytes) {
  const auto begin = Clock::now();
  HUSK_RETURN_IF_ERROR(sink_(kind, bytes));
  if (drain_) drain_->Paused(Clock::now() - begin);
  return absl::OkStatus();
}

bool Execution::Exited(const agent::v1::ProcessStatus& process) {
  if (exit_ || process.container_id() != container_id_ || process.exec_id() != exec_id_ ||
      process.state() != agent::v1::EXITED) {
    return false;
  }
  exit_ = process.exit_code();
  drain_.emplace();
  return true;
}

}  // namespace husk::sandbox
