// What a fake guest consists of; for fake_agent.cc and fake_client.cc only.
#ifndef HUSK_AGENT_CLIENT_FAKE_GUEST_STATE_H_
#define HUSK_AGENT_CLIENT_FAKE_GUEST_STATE_H_

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "agent/client/fake_agent.h"
#include "agent/common/context.h"
#include "agent/common/mutex.h"

namespace husk::agent {

using FakeProcessKey = std::pair<std::string, std::string>;  // container id, exec id

struct FakeStream {
  std::string bytes;       // from `base` on
  std::uint64_t base = 0;  // everything before it was acknowledged
  bool closed = false;
  [[nodiscard]] std::uint64_t end() const { return base + bytes.size(); }
};

struct FakeProcess {
  FakeProgram program;
  v1::ProcessStatus status;
  FakeStream standard_output;
  FakeStream standard_error;
  std::string standard_input;
  std::vector<std::uint32_t> signals;
  FakeStream& stream(v1::StreamKind kind) { return kind == v1::STDERR ? standard_error : standard_output; }
};

struct FakeConnection {
  std::uint32_t port = 0;
  std::string error;  // nobody listens
  std::string input;
  bool input_ended = false;
  FakeStream output;
  std::uint64_t version = 1;
  std::uint64_t known = 0;  // the version of the last receipt
  bool writable = true;
};

struct FakeForwarding {
  std::uint64_t last = 0;  // the highest number so far
  std::map<std::uint64_t, FakeConnection> connections;
};

struct FakeFault {
  Status status;
  int times = 0;
  bool after_effect = false;
};

inline std::int64_t FakeNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Everything below the one lock; what waits, waits for `changed`.
struct FakeGuest::State {
  // One call's passage: counted, held up by Block, failed by FailNext. Then `effect`, under the lock.
  template <typename Effect>
  Status Call(const Context& context, const std::string& method, Effect effect) {
    const Waker waker(context, *this);
    const MutexLock lock(mutex);
    HUSK_RETURN_IF_ERROR(Enter(context, method));
    const Status outcome = effect();
    changed.NotifyAll();  // a failed start changes something too
    HUSK_RETURN_IF_ERROR(outcome);
    return TakeFault(method, /*after_effect=*/true);
  }

  Status Enter(const Context& context, const std::string& method) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    HUSK_RETURN_IF_ERROR(CheckCall(context));
    if (method != "Poll" && method != "WriteStdin" && !method.ends_with("Forwarding")) calls.push_back(method);
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

  FakeProcess* Find(const std::string& container_id, const std::string& exec_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto found = processes.find({container_id, exec_id});
    return found == processes.end() ? nullptr : &found->second;
  }

  void Run(FakeProcess& process, FakeProgram program) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    process.program = std::move(program);
    process.status.set_started_at(FakeNow());
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

  static void End(FakeProcess& process, std::int32_t exit_code, bool oom_killed, bool close_streams) {
    process.status.set_state(v1::EXITED);
    process.status.set_exit_code(exit_code);
    process.status.set_oom_killed(oom_killed);
    process.status.set_finished_at(FakeNow());
    if (close_streams) process.standard_output.closed = process.standard_error.closed = true;
  }

  static void Signal(FakeProcess& process, std::uint32_t signal) {
    if (process.status.state() != v1::RUNNING) return;
    process.signals.push_back(signal);
    if (signal == SIGKILL || !process.program.ignored_signals.contains(signal)) {
      End(process, 128 + static_cast<std::int32_t>(signal), false, true);
    }
  }

  // One that fails in a guest leaves an entry here that no test expects.
  void Apply(const v1::FileOperation& operation, FakeVolume& volume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (operation.has_make_directory()) {
      volume[operation.make_directory().path()] = "/";
    } else if (operation.has_make_symlink()) {
      volume[operation.make_symlink().path()] = "-> " + operation.make_symlink().target();
    } else if (operation.has_write_file()) {
      const auto& piece = operation.write_file();
      staged.resize(piece.offset());
      staged += piece.data();
      if (piece.last()) volume[piece.path()] = std::exchange(staged, "");
    } else if (operation.has_remove()) {
      const std::string& path = operation.remove().path();
      std::erase_if(volume, [&](const auto& entry) { return (entry.first + "/").starts_with(path + "/"); });
    } else if (operation.has_keep_only()) {
      const auto& names = operation.keep_only().names();
      std::erase_if(volume, [&](const auto& entry) {
        return std::find(names.begin(), names.end(), entry.first.substr(0, entry.first.find('/'))) == names.end();
      });
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
  std::vector<std::pair<std::string, FakeFault>> faults ABSL_GUARDED_BY(mutex);
  std::set<std::string> blocked ABSL_GUARDED_BY(mutex);
  bool channel_down ABSL_GUARDED_BY(mutex) = false;
  bool shut_down ABSL_GUARDED_BY(mutex) = false;
  std::uint32_t boot ABSL_GUARDED_BY(mutex) = 1;
  std::uint32_t next_pid ABSL_GUARDED_BY(mutex) = 100;
  std::vector<std::string> calls ABSL_GUARDED_BY(mutex);
  std::map<std::string, int> counts ABSL_GUARDED_BY(mutex);
  std::optional<v1::SandboxConfig> sandbox ABSL_GUARDED_BY(mutex);
  std::map<std::string, FakeVolume> volumes ABSL_GUARDED_BY(mutex);
  std::string staged ABSL_GUARDED_BY(mutex);
  std::map<std::string, v1::ContainerSpec> containers ABSL_GUARDED_BY(mutex);
  std::map<FakeProcessKey, FakeProcess> processes ABSL_GUARDED_BY(mutex);
  std::map<std::string, std::string> resources ABSL_GUARDED_BY(mutex);   // by container, as last updated
  std::optional<v1::ResizeGuestRequest> resized ABSL_GUARDED_BY(mutex);  // the last
  v1::MemoryNews memory ABSL_GUARDED_BY(mutex);
  std::uint64_t spare_memory ABSL_GUARDED_BY(mutex) = 0;
  std::map<std::uint32_t, FakeListener> listeners ABSL_GUARDED_BY(mutex);  // by port
  std::map<std::string, FakeForwarding> forwardings ABSL_GUARDED_BY(mutex);
  std::function<void(v1::PollForwardingResponse&)> forwarding_filter ABSL_GUARDED_BY(mutex);
  v1::StatsResponse stats ABSL_GUARDED_BY(mutex);
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_FAKE_GUEST_STATE_H_
