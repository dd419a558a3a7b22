#include "hypervisor/qemu/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "hypervisor/qemu/qmp_codec.h"
#include "hypervisor/qemu/wait.h"

namespace husk::hypervisor {
namespace {

constexpr std::size_t kLogTail = 4096;
constexpr off_t kMaximumLog = off_t{1} << 20;
constexpr auto kLogCheckInterval = std::chrono::seconds(10);

StatusOr<std::string> ReadAll(int descriptor) {
  std::string text;
  std::array<char, 4096> buffer;  // NOLINT: read() fills it
  for (;;) {
    const ssize_t count = read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "read");
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
    if (text.size() > 65536) return absl::InvalidArgumentError("the file is too long");
  }
}

StatusOr<std::string> ReadFile(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  HUSK_ASSIGN_OR_RETURN_DOING(auto text, ReadAll(file.get()), absl::StrCat("read ", path));
  return text;
}

template <typename Integer>
bool ParseNumber(std::string_view text, Integer& number) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

// The last bytes of a file that others append to.
std::string TailOf(int descriptor) {
  struct stat status{};
  if (fstat(descriptor, &status) != 0) return "";
  std::string tail(kLogTail, '\0');
  const off_t start = std::max<off_t>(0, status.st_size - static_cast<off_t>(kLogTail));
  const ssize_t count = pread(descriptor, tail.data(), tail.size(), start);
  tail.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
  return tail;
}

// Code 0 if it is not our child, or somebody else has reaped it.
siginfo_t Reap(int pidfd) {
  siginfo_t information{};
  if (waitid(P_PIDFD, static_cast<id_t>(pidfd), &information, WEXITED | WNOHANG) != 0) information = siginfo_t{};
  return information;
}

bool HasEnded(int pidfd) {
  pollfd ended{.fd = pidfd, .events = POLLIN, .revents = 0};
  return poll(&ended, 1, 0) > 0;
}

}  // namespace

StatusOr<StoredIdentity> ParseIdentity(const std::string& text) {
  StoredIdentity identity;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  for (const std::string& line : lines) {
    const std::pair<std::string, std::string> member = absl::StrSplit(line, absl::MaxSplits('=', 1));
    bool good = true;
    if (member.first == "pid") {
      good = ParseNumber(member.second, identity.process.pid) && identity.process.pid > 0;
    } else if (member.first == "start_time") {
      good = ParseNumber(member.second, identity.process.start_time);
    } else if (member.first == "boot_id") {
      identity.boot_id = member.second;
    } else {
      good = false;
    }
    if (!good) return absl::InvalidArgumentError(absl::StrCat("bad line in an identity file: ", Printable(line)));
  }
  if (identity.process.pid == 0 || identity.process.start_time == 0 || identity.boot_id.empty()) {
    return absl::InvalidArgumentError("an identity file is cut short");
  }
  return identity;
}

StatusOr<StoredIdentity> ReadIdentity(int state_directory) {
  const UniqueFd file(openat(state_directory, "identity", O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file.valid()) return ErrnoStatus(errno, "open the identity file");
  HUSK_ASSIGN_OR_RETURN_DOING(const auto text, ReadAll(file.get()), "read the identity file");
  return ParseIdentity(text);
}

StatusOr<std::uint64_t> ParseStartTime(const std::string& stat) {
  // The name in field 2 may hold blanks and brackets, so count from its last bracket.
  const auto bracket = stat.rfind(')');
  if (bracket == std::string::npos) return absl::InvalidArgumentError("no process name in stat");
  const std::vector<std::string> fields = absl::StrSplit(stat.substr(bracket + 1), ' ', absl::SkipEmpty());
  constexpr std::size_t kStartTime = 22 - 3;  // fields[0] is field 3
  std::uint64_t start_time = 0;
  if (fields.size() <= kStartTime || !ParseNumber(fields[kStartTime], start_time)) {
    return absl::InvalidArgumentError("no start time in stat");
  }
  return start_time;
}

StatusOr<UniqueFd> OpenProcess(const ProcessIdentity& identity) {
  // First the descriptor, then the check: what the pid names by now cannot be older than what the descriptor holds.
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, identity.pid, 0)));
  const auto gone = [&identity] { return absl::NotFoundError(absl::StrCat("process ", identity.pid, " has ended")); };
  if (!pidfd.valid() && errno == ESRCH) return gone();
  if (!pidfd.valid()) return ErrnoStatus(errno, "pidfd_open");
  const auto stat = ReadFile(absl::StrCat("/proc/", identity.pid, "/stat"));
  if (!stat.ok()) return gone();
  HUSK_ASSIGN_OR_RETURN(const auto start_time, ParseStartTime(*stat));
  if (start_time != identity.start_time || HasEnded(pidfd.get())) {
    Reap(pidfd.get());
    return gone();
  }
  return pidfd;
}

StatusOr<UniqueFd> OpenProcess(const StoredIdentity& identity) {
  HUSK_ASSIGN_OR_RETURN(auto boot_id, ReadFile("/proc/sys/kernel/random/boot_id"));
  if (boot_id != identity.boot_id + "\n") return absl::NotFoundError("the host has been rebooted");
  return OpenProcess(identity.process);
}

Status KillProcess(const Context& context, const UniqueFd& pidfd) {
  if (syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH) {
    return ErrnoStatus(errno, "kill QEMU");
  }
  const StopFd stop(context);
  while (!HasEnded(pidfd.get())) {
    HUSK_RETURN_IF_ERROR_DOING(context.Check(), "wait for the end of QEMU");
    std::array<pollfd, 2> fds{{{pidfd.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}}};
    poll(fds.data(), fds.size(), context.remaining_ms());
  }
  Reap(pidfd.get());
  return absl::OkStatus();
}

std::string LastWords(const std::string& log) {
  // QEMU's own mark. It warns of what it does without as soon as it is started, and nobody's end has to do with that.
  constexpr char kWarning[] = ": warning: ";
  const std::vector<std::string> lines = absl::StrSplit(log, '\n', absl::SkipWhitespace());
  const auto last = std::find_if(lines.rbegin(), lines.rend(),
                                 [&](const std::string& line) { return !absl::StrContains(line, kWarning); });
  return last == lines.rend() ? std::string() : Printable(*last);
}

std::string DescribeExit(const std::string& program, int code, int status, const std::string& last_words,
                         const std::string& hint) {
  if (code == CLD_KILLED || code == CLD_DUMPED) {
    const char* description = sigdescr_np(status);
    // Whoever crashes may have said why; nobody can who is killed.
    const std::string why = status == SIGKILL || last_words.empty() ? "" : absl::StrCat(": ", last_words);
    return absl::StrCat("killed by signal ", status, " (", description == nullptr ? "unknown" : description, ")", why);
  }
  if (!hint.empty()) return hint;
  const bool clean = code == CLD_EXITED && status == 0;
  if (!clean && !last_words.empty()) return last_words;
  if (code == CLD_EXITED) return absl::StrCat(program, " ended with exit code ", status);
  return absl::StrCat(program, " crashed or was killed; how is not known, for an earlier huskd had started it");
}

VmProcess::VmProcess(IoThread& io_thread, std::string program, const ProcessIdentity& identity, UniqueFd log)
    : io_thread_(io_thread),
      program_(std::move(program)),
      identity_(identity),
      log_(std::move(log)),
      pidfd_(io_thread.context()),
      log_timer_(io_thread.context()) {}

StatusOr<std::shared_ptr<VmProcess>> VmProcess::Watch(IoThread& io_thread, std::string program,
                                                      const ProcessIdentity& identity, UniqueFd pidfd, UniqueFd log) {
  std::shared_ptr<VmProcess> process(new VmProcess(io_thread, std::move(program), identity, std::move(log)));
  boost::system::error_code error;
  error = process->pidfd_.assign(pidfd.get(), error);
  if (error) return absl::InternalError(absl::StrCat("watch the process: ", error.message()));
  [[maybe_unused]] const int owned_by_asio = pidfd.Release();
  io_thread.Post([process] {
    process->WaitEnded();
    process->BoundLog();
  });
  return process;
}

bool VmProcess::alive() const {
  const MutexLock lock(mutex_);
  return !ended_;
}

void VmProcess::SetHint(std::string hint) {
  const MutexLock lock(mutex_);
  hint_ = std::move(hint);
}

void VmProcess::OnExit(ExitNotifier::Callback callback) {
  notifier_.SetCallback(std::move(callback));
  io_thread_.Post([self = shared_from_this()] { self->notifier_.Deliver(); });
}

StatusOr<VmExit> VmProcess::WaitForExit(const Context& context) {
  const WakeOnStop wake(context, mutex_, changed_);
  const MutexLock lock(mutex_);
  while (!told_) HUSK_RETURN_IF_ERROR_DOING(WaitOnce(context, mutex_, changed_), "wait for the end of QEMU");
  return *notifier_.exit();
}

Status VmProcess::Kill(const Context& context) {
  {
    // The descriptor is closed only by this object's end, so it may be used without the I/O thread.
    const MutexLock lock(mutex_);
    if (ended_) return absl::OkStatus();
  }
  const int pidfd = pidfd_.native_handle();
  if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0) != 0 && errno != ESRCH) {
    return ErrnoStatus(errno, "kill QEMU");
  }
  return WaitForExit(context).status();
}

void VmProcess::KillLater(std::chrono::milliseconds grace, std::string reason) {
  io_thread_.Post([self = shared_from_this(), grace, reason = std::move(reason)] {
    const auto timer = std::make_shared<boost::asio::steady_timer>(self->io_thread_.context(), grace);
    timer->async_wait([self, timer, reason](const boost::system::error_code& error) {
      const MutexLock lock(self->mutex_);
      if (error || self->ended_) return;
      self->killed_because_ = reason;
      // Its end is noticed like any other.
      syscall(SYS_pidfd_send_signal, self->pidfd_.native_handle(), SIGKILL, nullptr, 0);
    });
  });
}

void VmProcess::WaitEnded() {
  pidfd_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                    [self = shared_from_this()](const boost::system::error_code& error) {
                      if (!error) self->Ended();
                    });
}

void VmProcess::Ended() {
  // A wake-up that Asio made up on its own would be no end.
  if (!HasEnded(pidfd_.native_handle())) return WaitEnded();
  log_timer_.cancel();
  const siginfo_t information = Reap(pidfd_.native_handle());
  std::string hint;
  std::string reason;
  {
    const MutexLock lock(mutex_);
    hint = hint_;
    reason = killed_because_;
    ended_ = true;
  }
  if (reason.empty()) {
    reason = DescribeExit(program_, information.si_code, information.si_status, LastWords(TailOf(log_.get())), hint);
  }
  notifier_.SetExit({.reason = std::move(reason)});
  notifier_.Deliver();
  const MutexLock lock(mutex_);
  told_ = true;
  changed_.NotifyAll();
}

void VmProcess::BoundLog() {
  struct stat status{};
  if (fstat(log_.get(), &status) == 0 && status.st_size > kMaximumLog) {
    // QEMU appends, so it goes on at the new end. If it fails, the next turn tries again.
    [[maybe_unused]] const int truncated = ftruncate(log_.get(), 0);
  }
  log_timer_.expires_after(kLogCheckInterval);
  log_timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    // Both may have come due at once, and then cancelling it came too late: this object would never be let go.
    if (!error && self->alive()) self->BoundLog();
  });
}

}  // namespace husk::hypervisor
