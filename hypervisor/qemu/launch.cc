#include "hypervisor/qemu/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/process.h"

namespace husk::hypervisor {
namespace {

constexpr int kFirstDescriptor = 3;

// Copies above all numbers that the child will use, so that no dup2 overwrites the source of a later one.
StatusOr<std::vector<UniqueFd>> CopiesAbove(const std::vector<int>& descriptors, int lowest) {
  std::vector<UniqueFd> copies;
  copies.reserve(descriptors.size());
  for (const int descriptor : descriptors) {
    copies.emplace_back(fcntl(descriptor, F_DUPFD_CLOEXEC, lowest));
    if (!copies.back().valid()) return ErrnoStatus(errno, absl::StrCat("copy descriptor ", descriptor));
  }
  return copies;
}

void SetFreshSignals(posix_spawnattr_t& attributes) {
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

// One byte, or its absence when the launcher has ended.
Status AwaitAnnouncement(const Context& context, int socket) {
  const StopFd stop(context);
  for (;;) {
    HUSK_RETURN_IF_ERROR_DOING(context.Check(), "wait for the launcher");
    std::array<pollfd, 2> fds{{{socket, POLLIN, 0}, {stop.get(), POLLIN, 0}}};
    poll(fds.data(), fds.size(), context.remaining_ms());
    if (fds[0].revents == 0) continue;
    char byte = 0;
    const ssize_t count = recv(socket, &byte, 1, MSG_DONTWAIT);
    if (count == 1) return absl::OkStatus();
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    return absl::UnavailableError("the launcher ended early");
  }
}

StatusOr<ProcessIdentity> CheckedIdentity(pid_t child, int state_directory) {
  HUSK_ASSIGN_OR_RETURN(const auto stored, ReadIdentity(state_directory));
  if (stored.process.pid != child) {
    return absl::InternalError(absl::StrCat("the identity file names process ", stored.process.pid, ", not ", child));
  }
  return stored.process;
}

}  // namespace

int ChildDescriptors::Add(int descriptor) {
  descriptors_.push_back(descriptor);
  return kFirstDescriptor + static_cast<int>(descriptors_.size()) - 1;
}

StatusOr<pid_t> Spawn(const std::vector<std::string>& arguments, const ChildDescriptors& descriptors, int log) {
  const int end = kFirstDescriptor + static_cast<int>(descriptors.descriptors().size());
  HUSK_ASSIGN_OR_RETURN(const auto copies, CopiesAbove(descriptors.descriptors(), end));

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, log, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, log, STDERR_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  int number = kFirstDescriptor;
  for (const auto& copy : copies) posix_spawn_file_actions_adddup2(&actions, copy.get(), number++);
  posix_spawn_file_actions_addclosefrom_np(&actions, end);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  SetFreshSignals(attributes);

  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  // posix_spawn takes char* const[] for historical reasons and does not write.
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::array<char*, 1> environment{nullptr};
  pid_t pid = -1;
  const int error = posix_spawn(&pid, argv[0], &actions, &attributes, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("start ", arguments[0]));
  return pid;
}

StatusOr<GoSockets> MakeGoSockets() {
  std::array<int, 2> fds{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) != 0) return ErrnoStatus(errno, "socketpair");
  return GoSockets{.ours = UniqueFd(fds[0]), .theirs = UniqueFd(fds[1])};
}

StatusOr<Launched> AwaitIdentity(const Context& context, pid_t child, GoSockets go, int state_directory) {
  go.theirs.Reset();  // so that the launcher's end closes this one
  Launched launched{.pidfd = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, child, 0))), .go = std::move(go.ours)};
  Status status = launched.pidfd.valid() ? absl::OkStatus() : ErrnoStatus(errno, "pidfd_open");
  if (status.ok()) status = AwaitAnnouncement(context, launched.go.get());
  if (status.ok()) {
    auto identity = CheckedIdentity(child, state_directory);
    status = identity.status();
    if (identity.ok()) launched.identity = *identity;
  }
  if (status.ok()) return launched;
  // It is our own child and not yet reaped: its pid cannot be another's.
  kill(child, SIGKILL);
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return status;
}

Status Go(Launched& launched) {
  const char byte = 'g';
  const ssize_t count = send(launched.go.get(), &byte, 1, MSG_NOSIGNAL);
  launched.go.Reset();
  return count == 1 ? absl::OkStatus() : ErrnoStatus(errno, "tell the launcher to go on");
}

}  // namespace husk::hypervisor
