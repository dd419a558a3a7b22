#include "hypervisor/qemu/qemu_vm.h"
#include "hypervisor/qemu/memory_device.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "agent/common/rollback.h"
#include "hypervisor/qemu/command_line.h"
#include "hypervisor/qemu/cpu_operations.h"
#include "hypervisor/qemu/disk_operations.h"
#include "hypervisor/qemu/state_files.h"

namespace husk::hypervisor {
namespace {

using nlohmann::json;

constexpr std::size_t kMaximumConsole = 65536;
constexpr auto kUndoTimeout = std::chrono::seconds(15);
constexpr auto kRunningPoll = std::chrono::milliseconds(5);

std::uint64_t NumberMember(const json& object, const char* name) {
  if (!object.is_object()) return 0;
  const auto member = object.find(name);
  return member != object.end() && member->is_number_unsigned() ? member->get<std::uint64_t>() : 0;
}

bool BoolMember(const json& object, const char* name) {
  if (!object.is_object()) return false;
  const auto member = object.find(name);
  return member != object.end() && member->is_boolean() && member->get<bool>();
}

std::string StringMember(const json& object, const char* name) {
  if (!object.is_object()) return "";
  const auto member = object.find(name);
  return member != object.end() && member->is_string() ? member->get<std::string>() : "";
}

StatusOr<std::vector<std::string>> CommandLineOf(pid_t pid) {
  const UniqueFd file(open(absl::StrCat("/proc/", pid, "/cmdline").c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, "read QEMU's command line");
  std::string text;
  std::array<char, 4096> buffer;  // NOLINT: read() fills it
  ssize_t count = 0;
  while ((count = read(file.get(), buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  if (!text.empty() && text.back() == '\0') text.pop_back();
  return std::vector<std::string>(absl::StrSplit(text, '\0'));
}

}  // namespace

QemuVm::Turn::~Turn() {
  if (!taken_) return;
  const MutexLock lock(vm_.mutex_);
  vm_.turn_taken_ = false;
  vm_.changed_.NotifyAll();
}

Status QemuVm::Turn::Take(const Context& context) {
  const WakeOnStop wake(context, vm_.mutex_, vm_.changed_);
  const MutexLock lock(vm_.mutex_);
  while (vm_.turn_taken_) {
    HUSK_RETURN_IF_ERROR_DOING(WaitOnce(context, vm_.mutex_, vm_.changed_), "wait for another change of the VM");
  }
  vm_.turn_taken_ = taken_ = true;
  return absl::OkStatus();
}

QemuVm::QemuVm(std::shared_ptr<IoThread> io_thread, std::shared_ptr<const FileServerOptions> file_servers,
               std::shared_ptr<VmProcess> process, std::string state_directory, UniqueFd directory)
    : io_thread_(std::move(io_thread)),
      file_servers_(std::move(file_servers)),
      process_(std::move(process)),
      state_directory_(std::move(state_directory)),
      directory_(std::move(directory)),
      stall_(std::make_shared<DiskStall>(*io_thread_, state_directory_)) {}

QemuVm::~QemuVm() {
  process_->DropCallback();
  memory_notifier_->SetCallback(nullptr);
  std::map<std::string, Share> shares;
  {
    const MutexLock lock(mutex_);
    if (qmp_ != nullptr) qmp_->Close();
    shares.swap(shares_);
  }
  for (const auto& [tag, share] : shares) share.server->DropCallback();
}

Status QemuVm::AwaitRunning(const Context& context) {
  HUSK_ASSIGN_OR_RETURN(const auto qmp, Qmp(context));
  for (;;) {
    HUSK_ASSIGN_OR_RETURN(const json status, qmp->Execute(context, "query-status"));
    if (BoolMember(status, "running")) return absl::OkStatus();
    if (StringMember(status, "status") == "io-error") {
      stall_->Begin();
      return absl::OkStatus();
    }
    HUSK_RETURN_IF_ERROR_DOING(SleepFor(context, kRunningPoll), "wait for the VM to run");
  }
}

StatusOr<std::shared_ptr<QmpClient>> QemuVm::ConnectQmp(const Context& context) {
  HUSK_ASSIGN_OR_RETURN(auto socket, ConnectIn(context, directory_.get(), kQmpSocket));
  const std::weak_ptr<VmProcess> process = process_;
  const auto on_event = [process, stall = stall_, memory = memory_notifier_](const QmpEvent& event) {
    stall->Handle(event);
    if (const auto bytes = PluggedMemoryOf(event)) memory->Tell(*bytes);
    if (event.name != "SHUTDOWN") return;
    if (const auto watched = process.lock()) {
      watched->SetHint(absl::StrCat("the VM shut down: ", Printable(StringMember(event.data, "reason"))));
    }
  };
  HUSK_ASSIGN_OR_RETURN(auto client, QmpClient::Connect(context, *io_thread_, std::move(socket), on_event));
  stall_->SetClient(client);
  return client;
}

StatusOr<std::shared_ptr<QmpClient>> QemuVm::Qmp(const Context& context) {
  if (!process_->alive()) return absl::UnavailableError("the VM has ended");
  {
    const MutexLock lock(mutex_);
    if (qmp_ != nullptr && qmp_->status().ok()) return qmp_;
  }
  HUSK_ASSIGN_OR_RETURN(auto qmp, ConnectQmp(context));
  const MutexLock lock(mutex_);
  if (qmp_ != nullptr) qmp_->Close();
  qmp_ = qmp;
  return qmp;
}

StatusOr<std::set<std::uint32_t>> QemuVm::DeviceLuns(const Context& context, QmpClient& qmp) {
  HUSK_ASSIGN_OR_RETURN(const json children, qmp.Execute(context, "qom-list", {{"path", "/machine/peripheral"}}));
  std::set<std::uint32_t> luns;
  for (const auto& child : children) {
    if (const auto lun = LunOfName(StringMember(child, "name"))) luns.insert(*lun);
  }
  return luns;
}

Status QemuVm::RemoveHalfAttachedDisks(const Context& context) {
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR(turn.Take(context));
  HUSK_ASSIGN_OR_RETURN(const auto qmp, Qmp(context));
  HUSK_ASSIGN_OR_RETURN(const auto whole, DeviceLuns(context, *qmp));
  HUSK_ASSIGN_OR_RETURN(const auto begun, LunsWithDescriptors(context, *qmp));
  for (const auto lun : begun) {
    if (whole.contains(lun)) continue;
    HUSK_RETURN_IF_ERROR_DOING(RemoveDisk(context, *qmp, lun), absl::StrCat("remove half-attached disk lun=", lun));
  }
  return absl::OkStatus();
}

std::string QemuVm::agent_socket() const {
  return absl::StrCat(state_directory_, "/", kAgentSocket);
}

StatusOr<QemuVm::Fixed> QemuVm::FixedOf(const Context& context, QmpClient& qmp) {
  {
    const MutexLock lock(mutex_);
    if (fixed_) return *fixed_;
  }
  HUSK_ASSIGN_OR_RETURN(const bool accelerated, HasKvm(context, qmp));
  HUSK_ASSIGN_OR_RETURN(const json memory, qmp.Execute(context, "query-memory-size-summary"));
  HUSK_ASSIGN_OR_RETURN(const std::uint64_t maximum, MaximumPluggedMemory(context, qmp));
  const Fixed fixed{.accelerated = accelerated,
                    .boot_memory_bytes = NumberMember(memory, "base-memory"),
                    .maximum_plugged_bytes = maximum};
  const MutexLock lock(mutex_);
  fixed_ = fixed;
  return fixed;
}

StatusOr<QemuVm::Vcpus> QemuVm::VcpusOf(const Context& context, QmpClient& qmp, bool accelerated) {
  {
    const MutexLock lock(mutex_);
    if (fixed_vcpus_) return *fixed_vcpus_;
  }
  HUSK_ASSIGN_OR_RETURN(const auto slots, ReadCpuSlots(context, qmp));
  const auto present =
      std::count_if(slots.begin(), slots.end(), [](const CpuSlot& slot) { return !slot.path.empty(); });
  const Vcpus vcpus{.present = static_cast<std::uint32_t>(present),
                    .maximum = static_cast<std::uint32_t>(slots.size())};
  const MutexLock lock(mutex_);
  if (!accelerated && vcpus.present == vcpus.maximum) fixed_vcpus_ = vcpus;
  return vcpus;
}

StatusOr<VmInformation> QemuVm::Information(const Context& context) {
  HUSK_ASSIGN_OR_RETURN(const auto qmp, Qmp(context));
  HUSK_ASSIGN_OR_RETURN(const Fixed fixed, FixedOf(context, *qmp));
  HUSK_ASSIGN_OR_RETURN(const Vcpus vcpus, VcpusOf(context, *qmp, fixed.accelerated));
  std::uint64_t plugged = 0;
  std::uint64_t requested = 0;
  if (fixed.maximum_plugged_bytes > 0) {
    HUSK_ASSIGN_OR_RETURN(plugged, PluggedMemory(context, *qmp));
    HUSK_ASSIGN_OR_RETURN(requested, RequestedPluggedMemory(context, *qmp));
  }
  const std::uint64_t boot = fixed.boot_memory_bytes;
  VmInformation information{
      .process = process_->identity(),
      .accelerator = fixed.accelerated ? Accelerator::kKvm : Accelerator::kTcg,
      .vcpus = vcpus.present,
      .maximum_vcpus = vcpus.maximum,
      .vcpus_stay = !fixed.accelerated,
      .memory_bytes = boot + plugged,
      .requested_memory_bytes = boot + requested,
      .boot_memory_bytes = boot,
      .maximum_memory_bytes = boot + fixed.maximum_plugged_bytes,
  };
  HUSK_ASSIGN_OR_RETURN(information.command_line, CommandLineOf(information.process.pid));
  return information;
}

StatusOr<std::uint32_t> QemuVm::AttachDisk(const Context& context, const DiskConfig& disk) {
  HUSK_ASSIGN_OR_RETURN_DOING(auto extents, OpenDisk(disk), "attach disk");
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR_DOING(turn.Take(context), "attach disk");
  HUSK_ASSIGN_OR_RETURN_DOING(const auto qmp, Qmp(context), "attach disk");
  HUSK_ASSIGN_OR_RETURN_DOING(const auto used, DeviceLuns(context, *qmp), "attach disk");
  std::set<std::uint32_t> unusable;
  {
    const MutexLock lock(mutex_);
    unusable = unusable_luns_;
  }
  HUSK_ASSIGN_OR_RETURN_DOING(const auto lun, FreeLun(used, unusable), "attach disk");

  Rollback rollback(context, kUndoTimeout, [this, lun](const std::string& /*step*/, const Status& /*status*/) {
    const MutexLock lock(mutex_);
    unusable_luns_.insert(lun);
  });
  rollback.Add("remove disk", [&qmp, lun](const Context& undo) { return RemoveDisk(undo, *qmp, lun); });
  HUSK_RETURN_IF_ERROR_DOING(AddDisk(context, *qmp, lun, disk.read_only, std::move(extents)),
                             absl::StrCat("attach disk lun=", lun));
  rollback.Commit();
  return lun;
}

Status QemuVm::DetachDisk(const Context& context, std::uint32_t lun) {
  if (lun == 0) return absl::InvalidArgumentError("LUN 0 is the scratch disk");
  if (lun > kHighestLun) return absl::OkStatus();
  const std::string doing = absl::StrCat("detach disk lun=", lun);
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR_DOING(turn.Take(context), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const auto qmp, Qmp(context), doing);
  HUSK_RETURN_IF_ERROR_DOING(RemoveDisk(context, *qmp, lun), doing);
  const MutexLock lock(mutex_);
  unusable_luns_.erase(lun);
  return absl::OkStatus();
}

StatusOr<std::vector<std::uint32_t>> QemuVm::AttachedDisks(const Context& context) {
  HUSK_ASSIGN_OR_RETURN_DOING(const auto qmp, Qmp(context), "list disks");
  HUSK_ASSIGN_OR_RETURN_DOING(auto luns, DeviceLuns(context, *qmp), "list disks");
  luns.erase(0);
  return std::vector<std::uint32_t>(luns.begin(), luns.end());
}

void QemuVm::OnExit(std::function<void(const VmExit&)> callback) {
  process_->OnExit(std::move(callback));
}

bool QemuVm::alive() const {
  return process_->alive();
}

Status QemuVm::Kill(const Context& context) {
  return process_->Kill(context);
}

Status QemuVm::ReadConsole(const Context& context) {
  HUSK_ASSIGN_OR_RETURN(const auto qmp, Qmp(context));
  HUSK_ASSIGN_OR_RETURN(const json encoded,
                        qmp->Execute(context, "ringbuf-read",
                                     {{"device", kConsoleChardev}, {"size", kMaximumConsole}, {"format", "base64"}}));
  std::string text;
  if (!encoded.is_string() || !absl::Base64Unescape(encoded.get<std::string>(), &text)) {
    return absl::InternalError("QMP ringbuf-read: no base64");
  }
  const MutexLock lock(mutex_);
  console_.append(text);
  if (console_.size() > kMaximumConsole) console_.erase(0, console_.size() - kMaximumConsole);
  return absl::OkStatus();
}

std::string QemuVm::ConsoleTail(const Context& context) {
  // What was read before is still worth showing when nothing can be read any more.
  [[maybe_unused]] const Status status = ReadConsole(context);
  const MutexLock lock(mutex_);
  return console_;
}

}  // namespace husk::hypervisor
