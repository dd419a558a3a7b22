// The shared directories of a QemuVm: devices of its QEMU, and the file servers behind them.
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/rollback.h"
#include "hypervisor/qemu/command_line.h"
#include "hypervisor/qemu/mounts_below.h"
#include "hypervisor/qemu/qemu_vm.h"
#include "hypervisor/qemu/share_operations.h"

namespace husk::hypervisor {
namespace {

constexpr auto kUndoTimeout = std::chrono::seconds(15);
// A server ends by itself after its QEMU: which of them ended first shows after a moment.
constexpr std::chrono::milliseconds kQemuEndsToo{1000};
constexpr auto kLastWords = std::chrono::seconds(1);

// What ended the server says more than what QEMU noticed of it.
Status BetterError(const Context& context, const Status& status, VmProcess& server) {
  const auto exit = server.WaitForExit(context.WithTimeout(kLastWords));
  if (!exit.ok()) return status;
  return absl::UnavailableError(absl::StrCat("the file server ended while starting: ", exit->reason));
}

}  // namespace

// The guest's kernel waits for ever for what it has asked a server that is gone, and those who wait cannot be killed:
// there is no way on for such a VM.
void QemuVm::EndWithServer(const std::string& tag, VmProcess& server) const {
  const std::string path = ServedPath(directory_.get(), tag);
  server.OnExit([process = process_, path](const VmExit& exit) {
    process->KillLater(kQemuEndsToo, absl::StrCat("the file server of ", path, " ended: ", exit.reason));
  });
}

StatusOr<std::uint32_t> QemuVm::FreeSharePort() {
  const MutexLock lock(mutex_);
  std::set<std::uint32_t> used = unusable_ports_;
  for (const auto& [tag, share] : shares_) used.insert(share.port);
  for (std::uint32_t port = 0; port < kSharePorts; ++port) {
    if (!used.contains(port)) return port;
  }
  return absl::ResourceExhaustedError(absl::StrCat("a VM can have ", kSharePorts, " shared directories"));
}

Status QemuVm::AttachSharedDirectory(const Context& context, const SharedDirectory& directory) {
  const std::string& tag = directory.tag;
  const std::string doing = absl::StrCat("share ", directory.path);
  if (!IsShareTag(tag)) return absl::InvalidArgumentError(absl::StrCat("tag \"", tag, "\""));
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR_DOING(turn.Take(context), doing);
  {
    const MutexLock lock(mutex_);
    if (shares_.contains(tag)) return absl::OkStatus();
  }
  HUSK_ASSIGN_OR_RETURN_DOING(const auto qmp, Qmp(context), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const auto port, FreeSharePort(), doing);

  Rollback rollback(context, kUndoTimeout, [this, port](const std::string& /*step*/, const Status& /*status*/) {
    const MutexLock lock(mutex_);
    unusable_ports_.insert(port);
  });
  // The server first: QEMU answers nobody while it waits for one that hangs.
  rollback.Add("end the file server", [&](const Context& undo) {
    HUSK_RETURN_IF_ERROR(RemoveFileServer(undo, directory_.get(), tag));
    return RemoveShare(undo, *qmp, port, tag);
  });
  HUSK_ASSIGN_OR_RETURN_DOING(
      auto server, StartFileServer(context, *io_thread_, *file_servers_, directory, directory_.get()), doing);
  if (const Status added = AddShare(context, *qmp, port, tag, std::move(server.connection)); !added.ok()) {
    return Annotate(BetterError(context, added, *server.process), doing);
  }
  rollback.Commit();
  EndWithServer(tag, *server.process);
  const MutexLock lock(mutex_);
  shares_[tag] = {.port = port, .server = std::move(server.process)};
  return absl::OkStatus();
}

Status QemuVm::FollowMounts(const Context& context, const FollowedShare& share, std::vector<std::string>& gone) {
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR_DOING(turn.Take(context), absl::StrCat("follow the mounts below ", share.path));
  std::shared_ptr<VmProcess> server;
  {
    const MutexLock lock(mutex_);
    const auto found = shares_.find(share.tag);
    if (found == shares_.end()) return absl::NotFoundError(absl::StrCat("there is no share ", share.tag));
    server = found->second.server;
  }
  HUSK_ASSIGN_OR_RETURN(const pid_t serving, ServingProcess(server->identity()));
  return FollowMountsInNamespace(serving, share, gone);
}

Status QemuVm::DetachSharedDirectory(const Context& context, const std::string& tag) {
  const std::string doing = absl::StrCat("end share ", tag);
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR_DOING(turn.Take(context), doing);
  Share share;
  {
    const MutexLock lock(mutex_);
    const auto found = shares_.find(tag);
    if (found == shares_.end()) return absl::OkStatus();
    share = found->second;
  }
  HUSK_ASSIGN_OR_RETURN_DOING(const auto qmp, Qmp(context), doing);
  // The server ends with its device, and that is no failure.
  share.server->DropCallback();
  if (const Status removed = RemoveShare(context, *qmp, share.port, tag); !removed.ok()) {
    EndWithServer(tag, *share.server);
    return Annotate(removed, doing);
  }
  HUSK_RETURN_IF_ERROR_DOING(RemoveFileServer(context, directory_.get(), tag), doing);
  const MutexLock lock(mutex_);
  shares_.erase(tag);
  return absl::OkStatus();
}

StatusOr<std::vector<std::string>> QemuVm::SharedDirectories(const Context& context) {
  HUSK_ASSIGN_OR_RETURN_DOING(const auto qmp, Qmp(context), "list shared directories");
  HUSK_ASSIGN_OR_RETURN_DOING(const auto ports, AttachedShares(context, *qmp), "list shared directories");
  std::vector<std::string> tags;
  tags.reserve(ports.size());
  for (const auto& [tag, port] : ports) tags.push_back(tag);
  return tags;
}

Status QemuVm::AdoptSharedDirectories(const Context& context) {
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR(turn.Take(context));
  HUSK_ASSIGN_OR_RETURN(const auto qmp, Qmp(context));
  HUSK_ASSIGN_OR_RETURN(const auto attached, AttachedShares(context, *qmp));
  HUSK_ASSIGN_OR_RETURN(const auto begun, FileServerTags(directory_.get()));
  for (const auto& tag : begun) {
    if (attached.contains(tag)) continue;
    HUSK_RETURN_IF_ERROR_DOING(RemoveFileServer(context, directory_.get(), tag), absl::StrCat("end share ", tag));
  }
  HUSK_RETURN_IF_ERROR(RemoveHalfAddedShares(context, *qmp));
  for (const auto& [tag, port] : attached) {
    auto server = AdoptFileServer(*io_thread_, directory_.get(), tag);
    if (!server.ok()) {
      return absl::NotFoundError(
          absl::StrCat("the file server of ", ServedPath(directory_.get(), tag), " ended while no huskd was running"));
    }
    EndWithServer(tag, **server);
    const MutexLock lock(mutex_);
    shares_[tag] = {.port = port, .server = *std::move(server)};
  }
  return absl::OkStatus();
}

}  // namespace husk::hypervisor
