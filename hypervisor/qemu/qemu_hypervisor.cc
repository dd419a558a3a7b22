#include "hypervisor/qemu/qemu_hypervisor.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "agent/common/fault_point.h"
#include "agent/common/rollback.h"
#include "agent/common/subprocess.h"
#include "hypervisor/qemu/qemu_vm.h"
#include "hypervisor/qemu/runtime_files.h"
#include "hypervisor/qemu/start.h"
#include "hypervisor/qemu/state_files.h"

namespace husk::hypervisor {
namespace {

constexpr auto kToolTimeout = std::chrono::seconds(30);
constexpr auto kUndoTimeout = std::chrono::seconds(15);
// How long a QEMU that lives may take to greet. It takes milliseconds on an idle host; on one that swaps or is out of
// CPUs a living pod must not be taken for a dead one.
constexpr auto kRecoverTimeout = std::chrono::seconds(60);
// From the end of QMP's connection to the end of its process.
constexpr auto kLastWordsTimeout = std::chrono::seconds(10);

// QEMU reads them as its own user, which is none that the file may name.
Status CheckReadableByAll(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return ErrnoStatus(errno, path);
  if (!S_ISREG(status.st_mode) || (status.st_mode & S_IROTH) == 0) {
    return absl::FailedPreconditionError(absl::StrCat(path, " must be a file that everybody may read"));
  }
  return absl::OkStatus();
}

Status CheckExecutable(const std::string& path) {
  if (!path.starts_with('/')) return absl::InvalidArgumentError(absl::StrCat("'", path, "' is no absolute path"));
  return access(path.c_str(), X_OK) == 0 ? absl::OkStatus() : ErrnoStatus(errno, path);
}

class QemuHypervisor final : public Hypervisor {
 public:
  QemuHypervisor(StartOptions options, FileServerOptions file_servers, AcceleratorProbe accelerator)
      : options_(std::move(options)),
        file_servers_(std::make_shared<const FileServerOptions>(std::move(file_servers))),
        accelerator_(std::move(accelerator)),
        io_thread_(std::make_shared<IoThread>()) {}

  [[nodiscard]] AcceleratorProbe accelerator() const override { return accelerator_; }
  [[nodiscard]] StatusOr<std::string> Version(const Context& context) override;
  StatusOr<std::unique_ptr<Vm>> Start(const Context& context, VmConfig config) override;
  StatusOr<std::unique_ptr<Vm>> Recover(const Context& context, const std::string& state_directory) override;
  Status Destroy(const Context& context, const std::string& state_directory) override;

 private:
  StatusOr<std::unique_ptr<Vm>> StartIn(const Context& context, const VmConfig& config, UniqueFd directory);
  StatusOr<std::unique_ptr<QemuVm>> Adopt(const ProcessIdentity& identity, UniqueFd pidfd,
                                          const std::string& state_directory, UniqueFd directory);

  const StartOptions options_;
  const std::shared_ptr<const FileServerOptions> file_servers_;
  const AcceleratorProbe accelerator_;
  const std::shared_ptr<IoThread> io_thread_;
};

StatusOr<std::string> QemuHypervisor::Version(const Context& context) {
  HUSK_ASSIGN_OR_RETURN_DOING(
      const auto result,
      RunSubprocess(context.WithTimeout(kToolTimeout), {.argv = {options_.qemu.qemu_binary, "--version"}}),
      "ask QEMU for its version");
  // "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"
  constexpr std::string_view kBefore = "version ";
  const std::string& text = result.standard_output;
  const auto start = text.find(kBefore);
  if (result.exit_code != 0 || start == std::string::npos) {
    return absl::InternalError("QEMU does not tell its version");
  }
  const auto from = start + kBefore.size();
  return text.substr(from, text.find_first_of(" \n", from) - from);
}

// Nothing may live in the directory, and nothing of an earlier VM is left in it.
Status CleanDirectory(const Context& context, int directory) {
  const auto identity = ReadIdentity(directory);
  if (identity.ok()) {
    const auto living = OpenProcess(*identity);
    if (living.ok()) return absl::AlreadyExistsError(absl::StrCat("process ", identity->process.pid, " is its VM"));
    if (!absl::IsNotFound(living.status())) return living.status();
  }
  HUSK_RETURN_IF_ERROR(RemoveFileServers(context, directory));
  return RemoveStateFiles(directory);
}

StatusOr<std::unique_ptr<QemuVm>> QemuHypervisor::Adopt(const ProcessIdentity& identity, UniqueFd pidfd,
                                                        const std::string& state_directory, UniqueFd directory) {
  HUSK_ASSIGN_OR_RETURN(auto log, OpenLog(directory.get()));
  HUSK_ASSIGN_OR_RETURN(auto process,
                        VmProcess::Watch(*io_thread_, "QEMU", identity, std::move(pidfd), std::move(log)));
  return std::make_unique<QemuVm>(io_thread_, file_servers_, std::move(process), state_directory, std::move(directory));
}

StatusOr<std::unique_ptr<Vm>> QemuHypervisor::Start(const Context& context, VmConfig config) {
  const std::string doing = absl::StrCat("start VM ", config.id);
  HUSK_RETURN_IF_ERROR_DOING(CheckConfig(config), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(auto directory, OpenStateDirectory(config.state_directory), doing);
  HUSK_RETURN_IF_ERROR_DOING(CleanDirectory(context, directory.get()), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(auto vm, StartIn(context, config, std::move(directory)), doing);
  return vm;
}

// What ended QEMU says more than what QMP noticed of it.
Status BetterError(const Context& context, const Status& status, QemuVm& vm) {
  if (!context.Check().ok()) return status;
  struct Exit {
    Mutex mutex;
    ConditionVariable changed;
    std::string reason ABSL_GUARDED_BY(mutex);
  };
  const auto exit = std::make_shared<Exit>();
  vm.OnExit([exit](const VmExit& ended) {
    const MutexLock lock(exit->mutex);
    exit->reason = ended.reason;
    exit->changed.NotifyAll();
  });
  const auto until = Context::Clock::now() + kLastWordsTimeout;
  const MutexLock lock(exit->mutex);
  while (exit->reason.empty() && exit->changed.WaitUntil(exit->mutex, until)) {
  }
  if (exit->reason.empty()) return status;
  return absl::UnavailableError(absl::StrCat("QEMU ended while starting: ", exit->reason));
}

StatusOr<std::unique_ptr<Vm>> QemuHypervisor::StartIn(const Context& context, const VmConfig& config,
                                                      UniqueFd directory) {
  const UniqueFd files(fcntl(directory.get(), F_DUPFD_CLOEXEC, 0));
  if (!files.valid()) return ErrnoStatus(errno, "copy a descriptor");
  std::unique_ptr<QemuVm> vm;  // before what undoes: it must outlive that
  // Nobody is told of what could not be undone: the identity stays, and Destroy can try again.
  Rollback rollback(context, kUndoTimeout, nullptr);
  rollback.Add("remove files", [&files](const Context&) { return RemoveStateFiles(files.get()); });
  HUSK_ASSIGN_OR_RETURN(auto launched, LaunchQemu(context, options_, config, directory.get()));
  HUSK_ASSIGN_OR_RETURN(
      vm, Adopt(launched.identity, std::move(launched.pidfd), config.state_directory, std::move(directory)));
  rollback.Add("kill QEMU", [&vm](const Context& undo) { return vm->Kill(undo); });
  HUSK_RETURN_IF_ERROR(Go(launched));
  if (const Status status = vm->AwaitRunning(context); !status.ok()) return BetterError(context, status, *vm);
  rollback.Commit();
  return vm;
}

StatusOr<std::unique_ptr<Vm>> QemuHypervisor::Recover(const Context& context, const std::string& state_directory) {
  const std::string doing = absl::StrCat("recover the VM of ", state_directory);
  HUSK_ASSIGN_OR_RETURN_DOING(auto directory, OpenStateDirectory(state_directory), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const auto identity, ReadIdentity(directory.get()), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(auto pidfd, OpenProcess(identity), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(auto vm, Adopt(identity.process, std::move(pidfd), state_directory, std::move(directory)),
                              doing);

  const Context limited = context.WithTimeout(kRecoverTimeout);
  Status status = vm->AwaitRunning(limited);
  if (status.ok()) status = vm->RemoveHalfAttachedDisks(limited);
  if (status.ok()) status = vm->AdoptSharedDirectories(limited);
  if (status.ok()) return vm;
  HUSK_RETURN_IF_ERROR_DOING(context.Check(), doing);
  // Not whole, or nobody can talk to it: nothing of it may stay.
  HUSK_RETURN_IF_ERROR_DOING(vm->Kill(context), doing);
  HUSK_RETURN_IF_ERROR_DOING(Destroy(context, state_directory), doing);
  return absl::NotFoundError(absl::StrCat(doing, ": it was killed: ", status.message()));
}

Status QemuHypervisor::Destroy(const Context& context, const std::string& state_directory) {
  const std::string doing = absl::StrCat("destroy the VM of ", state_directory);
  const auto directory = OpenStateDirectory(state_directory);
  if (absl::IsNotFound(directory.status())) return absl::OkStatus();
  if (!directory.ok()) return Annotate(directory.status(), doing);
  const auto identity = ReadIdentity(directory->get());
  // A torn identity is that of a crash of the whole host: a launcher renames it into place.
  if (identity.ok()) {
    const auto pidfd = OpenProcess(*identity);
    if (!pidfd.ok() && !absl::IsNotFound(pidfd.status())) return Annotate(pidfd.status(), doing);
    if (pidfd.ok()) HUSK_RETURN_IF_ERROR_DOING(KillProcess(context, *pidfd), doing);
  }
  HUSK_RETURN_IF_ERROR_DOING(RemoveFileServers(context, directory->get()), doing);
  return Annotate(RemoveStateFiles(directory->get()), doing);
}

// "console=ttyS0 ..." and what the guest image asks for in the file "cmdline" beside its kernel.
StatusOr<std::string> KernelCommandLine(const std::string& kernel) {
  // no_timer_check: on a busy host under TCG the guest does not see enough ticks while it checks for them, and panics.
  std::string line = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check";
  const std::string path = absl::StrCat(kernel.substr(0, kernel.rfind('/')), "/cmdline");
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid() && errno == ENOENT) return line;
  if (!file.valid()) return ErrnoStatus(errno, path);
  std::string more(2048, '\0');
  const ssize_t count = read(file.get(), more.data(), more.size());
  if (count < 0) return ErrnoStatus(errno, path);
  more.resize(static_cast<std::size_t>(count));
  absl::StripAsciiWhitespace(&more);
  if (!more.empty()) absl::StrAppend(&line, " ", more);
  return line;
}

}  // namespace

StatusOr<std::unique_ptr<Hypervisor>> NewQemuHypervisor(const QemuOptions& options) {
  HUSK_RETURN_IF_ERROR_DOING(CheckExecutable(options.qemu_binary), "QEMU");
  HUSK_RETURN_IF_ERROR_DOING(CheckExecutable(options.launcher_binary), "husk-vm-launcher");
  StartOptions start{.qemu = options};
  if (!options.kernel.empty()) {
    HUSK_RETURN_IF_ERROR_DOING(CheckReadableByAll(options.kernel), "guest kernel");
    if (!options.initrd.empty()) HUSK_RETURN_IF_ERROR_DOING(CheckReadableByAll(options.initrd), "guest initrd");
    HUSK_ASSIGN_OR_RETURN(start.kernel_command_line, KernelCommandLine(options.kernel));
  }
  HUSK_ASSIGN_OR_RETURN_DOING(start.runtime_files,
                              QemuRuntimeFiles(Context::Background().WithTimeout(kToolTimeout), options.qemu_binary),
                              "find QEMU's files");
  AcceleratorProbe probe;
  if (options.accelerator) {
    probe = {.accelerator = *options.accelerator, .reason = "configured"};
  } else {
    probe = ProbeAccelerator();
  }
  start.accelerator = probe.accelerator;
  FileServerOptions file_servers{.launcher_binary = options.launcher_binary,
                                 .virtiofsd_binary = options.virtiofsd_binary};
  if (access(options.virtiofsd_binary.c_str(), X_OK) == 0) {
    HUSK_ASSIGN_OR_RETURN_DOING(
        file_servers.runtime_files,
        FileServerFiles(Context::Background().WithTimeout(kToolTimeout), options.virtiofsd_binary),
        "find virtiofsd's files");
  }
  return std::make_unique<QemuHypervisor>(std::move(start), std::move(file_servers), std::move(probe));
}

}  // namespace husk::hypervisor
