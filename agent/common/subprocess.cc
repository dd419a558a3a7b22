#include "agent/common/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"

extern char** environ;

namespace husk {
namespace {

constexpr auto kGraceForGrandchildren = std::chrono::seconds(1);

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

StatusOr<Pipe> MakePipe() {
  std::array<int, 2> fds{};
  if (pipe2(fds.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  // posix_spawn takes char* const[] for historical reasons and does not write.
  for (const auto& string : strings) pointers.push_back(const_cast<char*>(string.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// Owns the child until it is reaped: never leaves a zombie, never a running child.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid), pidfd_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ > 0) {
      kill(-pid_, SIGKILL);
      Reap();
    }
  }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  int Reap() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  pid_t pid_;
  UniqueFd pidfd_;
};

// Reads what is there; closes the pipe at its end. Bytes over the limit are dropped; true if any were.
bool Drain(UniqueFd& fd, std::string& into, std::size_t maximum) {
  std::array<char, 65536> buffer;  // NOLINT: read() fills it
  const ssize_t count = read(fd.get(), buffer.data(), buffer.size());
  if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) {
    fd.Reset();
    return false;
  }
  if (count < 0) return false;
  const auto room = maximum - std::min(maximum, into.size());
  const auto taken = std::min(room, static_cast<std::size_t>(count));
  into.append(buffer.data(), taken);
  return taken < static_cast<std::size_t>(count);
}

StatusOr<pid_t> Spawn(const SubprocessOptions& options, int in, int out, int err) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
  // Whatever a library opened without O_CLOEXEC stays here.
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);

  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // A group of its own, so that the whole family can be killed; signals as a fresh process has them.
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  const auto argv = Pointers(options.argv);
  std::vector<char*> environment;
  if (options.environment) environment = Pointers(*options.environment);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, options.argv[0].c_str(), &actions, &attributes, argv.data(),
                                options.environment ? environment.data() : environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("start ", options.argv[0]));
  return pid;
}

// A library may not change how its process takes SIGPIPE: blocks it for this thread and swallows the one that a write
// to a closed pipe raised.
ssize_t WriteWithoutSigpipe(int fd, std::string_view bytes) {
  sigset_t sigpipe;
  sigset_t before;
  sigset_t pending;
  sigemptyset(&sigpipe);
  sigaddset(&sigpipe, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
  const ssize_t count = write(fd, bytes.data(), bytes.size());
  const int error = errno;
  if (count < 0 && error == EPIPE && sigismember(&pending, SIGPIPE) == 0) {
    const timespec now{};
    while (sigtimedwait(&sigpipe, nullptr, &now) < 0 && errno == EINTR) {
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return count;
}

// Moves bytes both ways until the child has ended and closed its pipes, or the context ends.
class Exchange {
 public:
  Exchange(const Context& context, const SubprocessOptions& options, int pidfd, UniqueFd in, UniqueFd out, UniqueFd err)
      : context_(context),
        options_(options),
        pidfd_(pidfd),
        in_(std::move(in)),
        out_(std::move(out)),
        err_(std::move(err)),
        stop_(context) {}

  Status Run(SubprocessResult& result) {
    fcntl(in_.get(), F_SETFL, O_NONBLOCK);
    auto drain_until = Context::Clock::time_point::max();
    bool ended = false;
    while (!ended || ((out_.valid() || err_.valid()) && Context::Clock::now() < drain_until)) {
      HUSK_RETURN_IF_ERROR(context_.Check());
      if (in_.valid() && written_ == options_.standard_input.size()) in_.Reset();
      std::array<pollfd, 5> fds{{{in_.get(), POLLOUT, 0},
                                 {out_.get(), POLLIN, 0},
                                 {err_.get(), POLLIN, 0},
                                 {ended ? -1 : pidfd_, POLLIN, 0},
                                 {stop_.get(), POLLIN, 0}}};
      poll(fds.data(), fds.size(), context_.WithDeadline(drain_until).remaining_ms());
      if (fds[0].revents != 0) Feed();
      if (fds[1].revents != 0) {
        result.stdout_truncated |= Drain(out_, result.standard_output, options_.maximum_stdout);
      }
      if (fds[2].revents != 0) Drain(err_, result.standard_error, options_.maximum_stderr);
      if (fds[3].revents != 0) {
        ended = true;
        drain_until = Context::Clock::now() + kGraceForGrandchildren;
      }
    }
    return absl::OkStatus();
  }

 private:
  void Feed() {
    const std::string_view rest = std::string_view(options_.standard_input).substr(written_);
    const ssize_t count = WriteWithoutSigpipe(in_.get(), rest);
    if (count >= 0) {
      written_ += static_cast<std::size_t>(count);
    } else if (errno != EAGAIN && errno != EINTR) {
      in_.Reset();  // it does not want to read more; its exit code will tell
    }
  }

  const Context& context_;
  const SubprocessOptions& options_;
  const int pidfd_;
  UniqueFd in_;
  UniqueFd out_;
  UniqueFd err_;
  StopFd stop_;
  std::size_t written_ = 0;
};

}  // namespace

StatusOr<SubprocessResult> RunSubprocess(const Context& context, const SubprocessOptions& options) {
  if (options.argv.empty()) return absl::InvalidArgumentError("a subprocess needs the path of a program");
  HUSK_ASSIGN_OR_RETURN(auto in, MakePipe());
  HUSK_ASSIGN_OR_RETURN(auto out, MakePipe());
  HUSK_ASSIGN_OR_RETURN(auto err, MakePipe());
  HUSK_ASSIGN_OR_RETURN(const pid_t pid, Spawn(options, in.read_end.get(), out.write_end.get(), err.write_end.get()));
  Child child(pid);
  in.read_end.Reset();
  out.write_end.Reset();
  err.write_end.Reset();

  SubprocessResult result;
  Exchange exchange(context, options, child.pidfd(), std::move(in.write_end), std::move(out.read_end),
                    std::move(err.read_end));
  HUSK_RETURN_IF_ERROR_DOING(exchange.Run(result), absl::StrCat("run ", options.argv[0]));
  result.exit_code = child.Reap();
  return result;
}

}  // namespace husk
