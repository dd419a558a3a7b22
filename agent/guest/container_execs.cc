// The part of Containers that is about execs.

#include <unistd.h>

#include <csignal>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "agent/guest/cgroup.h"
#include "agent/guest/containers.h"
#include "agent/guest/files.h"
#include "agent/guest/ids.h"
#include "agent/guest/oci_bundle.h"

namespace husk::agent {
namespace {

// crun says only in words what was wrong.
Status ClassifyExecFailure(const Status& status) {
  for (const char* words : {"not found in $PATH", "No such file or directory"}) {
    if (absl::StrContains(status.message(), words)) return absl::NotFoundError(status.message());
  }
  return absl::FailedPreconditionError(status.message());
}

}  // namespace

Containers::ExecState* Containers::FindExec(const std::string& container_id, const std::string& exec_id) {
  Container* const container = FindContainer(container_id);
  if (container == nullptr) return nullptr;
  const auto found = container->execs.find(exec_id);
  return found == container->execs.end() ? nullptr : found->second.get();
}

std::string Containers::ExecCgroup(const std::string& container_id, const ExecState& exec) const {
  return absl::StrCat(Cgroup(container_id), "/", exec.cgroup);
}

void Containers::Exec(const v1::ExecRequest& request, const Done<v1::ExecResponse>& done) {
  if (const Status valid = CheckId(request.exec_id()); !valid.ok()) return done(valid);
  const std::string& container_id = request.container_id();
  const std::string& exec_id = request.exec_id();
  Container* const container = FindContainer(container_id);
  if (container == nullptr || container->creating) {
    return done(UnknownContainer(container_id));
  }
  const auto answer = [this, container_id, exec_id, done](const Status& status) {
    if (!status.ok()) return done(status);
    v1::ExecResponse response;
    response.set_pid(FindExec(container_id, exec_id)->process.status.pid());
    done(std::move(response));
  };
  if (ExecState* const present = FindExec(container_id, exec_id)) {
    if (!present->process.starting) return answer(present->process.start_status);
    present->process.start_waiters.Add(answer);
    return;
  }
  if (container->removing || !container->process.running()) {
    return done(absl::FailedPreconditionError(absl::StrCat("container ", container_id, " does not run")));
  }
  if (container->execs.size() >= kMaximumExecs) return done(absl::ResourceExhaustedError("too many execs"));
  const std::vector<std::string> arguments(request.arguments().begin(), request.arguments().end());
  auto process_json = ExecProcess(container->config, arguments, request.tty());
  if (!process_json.ok()) return done(process_json.status());

  auto exec = std::make_unique<ExecState>(loop_, changed_);
  exec->cgroup = absl::StrCat("husk-exec-", ++execs_);
  if (const Status made = MakeDirectories(ExecCgroup(container_id, *exec), 0755); !made.ok()) return done(made);
  Process& process = exec->process;
  process.status.set_container_id(container_id);
  process.status.set_exec_id(exec_id);
  process.status.set_state(v1::CREATED);
  process.starting = true;
  process.start_waiters.Add(answer);
  container->execs[exec_id] = std::move(exec);
  ProcessIo::ChildEnds ends;
  if (!request.tty()) {
    auto pipes = process.io.OpenPipes(request.stdin());
    if (!pipes.ok()) return ExecStarted(container_id, exec_id, pipes.status());
    ends = *std::move(pipes);
  }
  crun_.Exec(container_id, container->execs[exec_id]->cgroup, *process_json, request.tty(), std::move(ends),
             [this, container_id, exec_id, with_stdin = request.stdin(),
              tty = request.tty()](StatusOr<Crun::Started> started) {
               Status status = started.status();
               if (started.ok() && tty) {
                 status =
                     FindExec(container_id, exec_id)->process.io.OpenTerminal(std::move(started->terminal), with_stdin);
                 if (!status.ok()) kill(started->pid, SIGKILL);
               }
               if (!status.ok()) return ExecStarted(container_id, exec_id, status);
               ExecStarted(container_id, exec_id, std::move(started));
             });
}

void Containers::ExecStarted(const std::string& container_id, const std::string& exec_id,
                             StatusOr<Crun::Started> started) {
  ExecState& exec = *FindExec(container_id, exec_id);
  if (started.ok()) {
    MarkStarted(exec.process, started->pid);
  } else {
    MarkFailed(exec.process, ClassifyExecFailure(started.status()));
  }
  exec.process.start_waiters.Answer(exec.process.start_status);
  if (started.ok()) {
    children_.Await(started->pid,
                    [this, container_id, exec_id](int exit_code) { ExecExited(container_id, exec_id, exit_code); });
  }
  changed_();
  FinishExecRemoval(container_id, exec_id);
}

void Containers::ExecExited(const std::string& container_id, const std::string& exec_id, int exit_code) {
  ExecState& exec = *FindExec(container_id, exec_id);
  const bool killed = exit_code == 128 + SIGKILL;
  MarkExited(exec.process, exit_code, killed ? CgroupOutOfMemory(Cgroup(container_id)) : OutOfMemory::kNone);
  changed_();
  FinishExecRemoval(container_id, exec_id);
}

void Containers::KillExec(const std::string& container_id, ExecState& exec, int signal) {
  SignalCgroup(ExecCgroup(container_id, exec), signal, static_cast<pid_t>(exec.process.status.pid()));
}

void Containers::SignalExec(const v1::SignalExecRequest& request, const Done<v1::SignalExecResponse>& done) {
  ExecState* const exec = FindExec(request.container_id(), request.exec_id());
  if (exec == nullptr) return done(absl::NotFoundError(absl::StrCat("no exec ", request.exec_id())));
  if (request.signal() < 1 || request.signal() > 64) return done(absl::InvalidArgumentError("no such signal"));
  if (exec->process.starting) {
    exec->process.start_waiters.Add([this, request, done](const Status&) { SignalExec(request, done); });
    return;
  }
  if (exec->process.running()) KillExec(request.container_id(), *exec, static_cast<int>(request.signal()));
  done(v1::SignalExecResponse());
}

void Containers::RemoveExec(const v1::RemoveExecRequest& request, const Done<v1::RemoveExecResponse>& done) {
  ExecState* const exec = FindExec(request.container_id(), request.exec_id());
  if (exec == nullptr) return done(v1::RemoveExecResponse());
  exec->removing = true;
  exec->remove_waiters.Add([done](const Status& status) {
    if (!status.ok()) return done(status);
    done(v1::RemoveExecResponse());
  });
  FinishExecRemoval(request.container_id(), request.exec_id());
}

void Containers::FinishExecRemoval(const std::string& container_id, const std::string& exec_id) {
  Container* const container = FindContainer(container_id);
  if (container == nullptr) return;
  const auto found = container->execs.find(exec_id);
  if (found != container->execs.end() && found->second->removing && !found->second->process.starting) {
    if (found->second->process.running()) {
      KillExec(container_id, *found->second, SIGKILL);
    } else {
      const std::unique_ptr<ExecState> removed = std::move(found->second);
      // Not removable while something that it started lives on in it; then it goes with the container's.
      rmdir(ExecCgroup(container_id, *removed).c_str());
      container->execs.erase(found);
      removed->remove_waiters.Answer(absl::OkStatus());
      changed_();
    }
  }
  ContinueRemoval(container_id);
}

}  // namespace husk::agent
