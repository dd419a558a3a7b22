#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/container_operations.h"
#include "sandbox/drain.h"
#include "sandbox/id.h"
#include "sandbox/logging.h"

namespace husk::sandbox {
namespace {

using Clock = Context::Clock;
using std::chrono::milliseconds;

constexpr std::size_t kMaximumOutput = std::size_t{16} << 20;
constexpr auto kPollWait = milliseconds(5000);
constexpr auto kCleanupTimeout = std::chrono::seconds(10);

// One process in a container, from Exec to RemoveExec.
class Execution {
 public:
  Execution(std::shared_ptr<agent::AgentClient> client, std::string container_id)
      : client_(std::move(client)), container_id_(std::move(container_id)), exec_id_(NewId()) {}

  Status Start(const Context& context, const std::vector<std::string>& command) {
    agent::v1::ExecRequest request;
    request.set_container_id(container_id_);
    request.set_exec_id(exec_id_);
    for (const std::string& argument : command) request.add_arguments(argument);
    return client_->Exec(context, request).status();
  }

  // Until it has exited and its streams have ended, or have been waited for long enough.
  Status Follow(const Context& context) {
    while (!exit_ || !(streams_[0].ended && streams_[1].ended)) {
      HUSK_RETURN_IF_ERROR(context.Check());
      if (drain_ && drain_->over()) break;
      HUSK_RETURN_IF_ERROR(PollOnce(context));
    }
    return absl::OkStatus();
  }

  ExecResult TakeResult() {
    return {.standard_output = std::move(streams_[0].kept),
            .standard_error = std::move(streams_[1].kept),
            .exit_code = exit_.value_or(255)};
  }

  // Kills it if it still runs, and makes the guest forget it.
  void CleanUp(const Context& context) {
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

 private:
  struct Stream {
    agent::v1::StreamKind kind;
    std::string kept;  // the first kMaximumOutput bytes
    std::uint64_t offset = 0;
    bool ended = false;
  };

  Status PollOnce(const Context& context) {
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
    const auto asked_at = Clock::now();
    HUSK_ASSIGN_OR_RETURN(const agent::v1::PollResponse response, client_->Poll(context, request));
    if (response.unknown_size() > 0 && !exit_) {
      return absl::UnavailableError("the guest does not know the process any more");
    }
    std::size_t taken = 0;
    bool news = false;
    for (const auto& chunk : response.chunks()) {
      if (!Take(chunk)) continue;
      news = true;
      taken += chunk.data().size();
    }
    if (drain_ && news) drain_->Progress(taken);
    if (drain_ && !news) drain_->Idle();
    for (const auto& process : response.exits()) news |= Exited(process);
    const bool said_something = response.chunks_size() + response.exits_size() + response.unknown_size() > 0;
    const bool early = Clock::now() - asked_at < wait;
    // An agent that repeats itself, or says nothing at once, must not make this thread spin.
    return news || !(said_something || early) ? absl::OkStatus() : SleepFor(context, milliseconds(100));
  }

  bool Take(const agent::v1::StreamChunk& chunk) {
    if (chunk.container_id() != container_id_ || chunk.exec_id() != exec_id_) return false;
    for (Stream& stream : streams_) {
      if (stream.kind != chunk.kind() || stream.ended || chunk.offset() > stream.offset) continue;
      const std::uint64_t known = stream.offset - chunk.offset();
      if (known > chunk.data().size()) continue;
      const std::uint64_t fresh = chunk.data().size() - known;
      const std::size_t room = kMaximumOutput - stream.kept.size();
      stream.kept.append(chunk.data(), known, std::min<std::uint64_t>(room, fresh));
      stream.offset += fresh;
      stream.ended = chunk.end();
      return fresh > 0 || stream.ended;
    }
    return false;
  }

  bool Exited(const agent::v1::ProcessStatus& process) {
    if (exit_ || process.container_id() != container_id_ || process.exec_id() != exec_id_ ||
        process.state() != agent::v1::EXITED) {
      return false;
    }
    exit_ = process.exit_code();
    drain_.emplace();
    return true;
  }

  const std::shared_ptr<agent::AgentClient> client_;
  const std::string container_id_;
  const std::string exec_id_;
  std::array<Stream, 2> streams_{Stream{.kind = agent::v1::STDOUT, .kept = ""},
                                 Stream{.kind = agent::v1::STDERR, .kept = ""}};
  std::optional<std::int32_t> exit_;
  std::optional<Drain> drain_;  // once it has exited
};

}  // namespace

StatusOr<ExecResult> ExecInContainer(const Context& context, Pod& pod, const std::string& id,
                                     const std::vector<std::string>& command, std::chrono::nanoseconds timeout) {
  if (command.empty()) return absl::InvalidArgumentError("cmd: is empty");
  const auto status = pod.container_status(id);
  const auto client = pod.client();
  if (!status) return absl::NotFoundError(absl::StrCat("there is no container ", id));
  if (status->state != ContainerState::kRunning || client == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("container ", id, " does not run"));
  }
  const bool limited = timeout > std::chrono::nanoseconds::zero();
  const Context bounded = limited ? context.WithTimeout(timeout) : context;
  Execution execution(client, id);
  Status done = execution.Start(bounded, command);
  if (done.ok()) done = execution.Follow(bounded);
  // After a failed start too: its answer may have been lost.
  if (!pod.ended()) execution.CleanUp(context);
  if (done.ok()) return execution.TakeResult();
  if (absl::IsDeadlineExceeded(done) && limited && context.Check().ok()) {
    return absl::DeadlineExceededError(
        absl::StrCat("the command did not end within ", std::chrono::ceil<milliseconds>(timeout).count(), " ms"));
  }
  return Annotate(done, absl::StrCat("run a command in container ", id));
}

}  // namespace husk::sandbox
