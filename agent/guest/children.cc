#include "agent/guest/children.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::agent {
namespace {

void AddDescriptor(posix_spawn_file_actions_t* actions, int from, int to, int flags) {
  if (from >= 0) {
    posix_spawn_file_actions_adddup2(actions, from, to);
  } else {
    posix_spawn_file_actions_addopen(actions, to, "/dev/null", flags, 0);
  }
}

}  // namespace

int ExitCode(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

Children::Children(EventLoop& loop) {
  loop.OnChildExit([this](pid_t pid, int status) { Exited(pid, status); });
}

StatusOr<pid_t> Children::Start(const Command& command, OnExit on_exit) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  AddDescriptor(&actions, command.standard_input, STDIN_FILENO, O_RDONLY);
  AddDescriptor(&actions, command.standard_output, STDOUT_FILENO, O_WRONLY);
  AddDescriptor(&actions, command.standard_error, STDERR_FILENO, O_WRONLY);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  if (!command.directory.empty()) posix_spawn_file_actions_addchdir_np(&actions, command.directory.c_str());

  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::vector<char*> argv;
  argv.reserve(command.argv.size() + 1);
  // posix_spawn takes char* const[] for historical reasons and does not write.
  for (const auto& argument : command.argv) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const char* const path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
  std::vector<char*> environment{const_cast<char*>(path), nullptr};
  pid_t pid = -1;
  const int error = posix_spawn(&pid, command.argv[0].c_str(), &actions, &attributes, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("start ", command.argv[0]));
  awaited_[pid] = std::move(on_exit);
  return pid;
}

Children::Memory Children::RememberExits() {
  // What an earlier launch left must not be taken for an exit of a process that has its number now.
  if (memory_.use_count() == 1) remembered_.clear();
  return memory_;
}

void Children::Await(pid_t pid, OnExit on_exit) {
  const auto ended = remembered_.find(pid);
  if (ended == remembered_.end()) {
    awaited_[pid] = std::move(on_exit);
    return;
  }
  const int exit_code = ended->second;
  remembered_.erase(ended);
  on_exit(exit_code);
}

void Children::Exited(pid_t pid, int wait_status) {
  const auto found = awaited_.find(pid);
  if (found != awaited_.end()) {
    const OnExit on_exit = std::move(found->second);
    awaited_.erase(found);
    on_exit(ExitCode(wait_status));
    return;
  }
  if (memory_.use_count() > 1 && remembered_.size() < kMaximumRemembered) remembered_[pid] = ExitCode(wait_status);
}

}  // namespace husk::agent
