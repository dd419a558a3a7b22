#include "hypervisor/fake/fake_hypervisor.h"

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/mutex.h"
#include "hypervisor/exit_notifier.h"
#include "hypervisor/memory_notifier.h"

namespace husk::hypervisor {
namespace {

constexpr std::uint32_t kHighestLun = 255;
// Beyond any pid that Linux gives out, so that a mistaken kill hits nobody.
constexpr pid_t kFirstPid = 1'000'000'000;

struct FakeVmEntry {
  FakeVmRecord record;
  std::vector<NetworkDevice> network_devices;  // a tap goes when its VM goes
  // Of the Vm object that now stands for this VM; none between the objects of two huskds.
  std::shared_ptr<ExitNotifier> notifier;
  std::shared_ptr<MemoryNotifier> memory_notifier;
};

FakeVmRecord RecordOf(const VmConfig& config, pid_t pid) {
  FakeVmRecord record{.id = config.id,
                      .vcpus = config.vcpus,
                      .maximum_vcpus = config.maximum_vcpus,
                      .memory_bytes = config.memory_bytes,
                      .maximum_memory_bytes = config.maximum_memory_bytes,
                      .user = config.user,
                      .group = config.group,
                      .state_directory = config.state_directory,
                      .cgroup_procs = config.cgroup_procs,
                      .network_namespace = config.network_namespace,
                      .scratch = config.scratch,
                      .process = {.pid = pid, .start_time = static_cast<std::uint64_t>(pid)},
                      .alive = true};
  for (const auto& device : config.network_devices) record.mac_addresses.push_back(device.mac_address);
  return record;
}

}  // namespace

class FakeMachine::State {
 public:
  State() : thread_([this] { DeliverExits(); }) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    thread_.join();
  }

  void FailNext(FakeOperation operation, Status error, int successes) {
    const MutexLock lock(mutex_);
    failures_[operation] = {std::move(error), successes};
  }

  // The injected error, if this call of the operation is the one that shall fail.
  Status Check(const Context& context, FakeOperation operation) {
    HUSK_RETURN_IF_ERROR(context.Check());
    const MutexLock lock(mutex_);
    const auto failure = failures_.find(operation);
    if (failure == failures_.end() || failure->second.successes-- > 0) return absl::OkStatus();
    Status error = std::move(failure->second.error);
    failures_.erase(failure);
    return error;
  }

  void HoldStarts(bool hold) {
    const MutexLock lock(mutex_);
    hold_starts_ = hold;
    changed_.NotifyAll();
  }

  void WaitForHeldStarts(int count) {
    const MutexLock lock(mutex_);
    while (held_starts_ < count) changed_.Wait(mutex_);
  }

  Status WaitWhileHeld(const Context& context) {
    const std::stop_callback wake(context.stop_token(), [this] {
      const MutexLock lock(mutex_);
      changed_.NotifyAll();
    });
    const MutexLock lock(mutex_);
    ++held_starts_;
    changed_.NotifyAll();
    Status status;
    while (hold_starts_ && (status = context.Check()).ok()) {
      if (context.deadline() == Context::Clock::time_point::max()) {
        changed_.Wait(mutex_);
      } else {
        changed_.WaitUntil(mutex_, context.deadline());
      }
    }
    --held_starts_;
    return status;
  }

  StatusOr<std::shared_ptr<FakeVmEntry>> Add(VmConfig config) {
    const MutexLock lock(mutex_);
    if (Find(config.state_directory) != nullptr) {
      return absl::AlreadyExistsError(absl::StrCat("a VM of ", config.state_directory, " lives"));
    }
    auto entry = std::make_shared<FakeVmEntry>();
    entry->record = RecordOf(config, next_pid_++);
    entry->network_devices = std::move(config.network_devices);
    entry->notifier = std::make_shared<ExitNotifier>();
    entry->memory_notifier = std::make_shared<MemoryNotifier>();
    entries_.push_back(entry);
    return entry;
  }

  // The living VM of a directory, with a fresh notifier for its new owner.
  StatusOr<std::shared_ptr<FakeVmEntry>> Adopt(const std::string& state_directory) {
    const MutexLock lock(mutex_);
    auto entry = Find(state_directory);
    if (entry == nullptr) return absl::NotFoundError(absl::StrCat("no VM of ", state_directory, " lives"));
    entry->notifier = std::make_shared<ExitNotifier>();
    entry->memory_notifier = std::make_shared<MemoryNotifier>();
    return entry;
  }

  bool EndWhere(const std::function<bool(const FakeVmRecord&)>& predicate, const std::string& reason) {
    const MutexLock lock(mutex_);
    bool ended = false;
    for (const auto& entry : entries_) {
      if (!entry->record.alive || !predicate(entry->record)) continue;
      entry->record.alive = false;
      entry->record.exit_reason = reason;
      entry->network_devices.clear();
      entry->notifier->SetExit({.reason = reason});
      to_deliver_.push_back(entry->notifier);
      ended = true;
    }
    changed_.NotifyAll();
    return ended;
  }

  void DeliverLater(std::shared_ptr<ExitNotifier> notifier) {
    const MutexLock lock(mutex_);
    to_deliver_.push_back(std::move(notifier));
    changed_.NotifyAll();
  }

  FakeVmRecord Record(const FakeVmEntry& entry) const {
    const MutexLock lock(mutex_);
    return entry.record;
  }

  std::vector<FakeVmRecord> Records() const {
    const MutexLock lock(mutex_);
    std::vector<FakeVmRecord> records;
    records.reserve(entries_.size());
    for (const auto& entry : entries_) records.push_back(entry->record);
    return records;
  }

  StatusOr<std::uint32_t> Attach(FakeVmEntry& entry, const DiskConfig& disk) {
    const MutexLock lock(mutex_);
    if (!entry.record.alive) return absl::UnavailableError("the VM has ended");
    for (std::uint32_t lun = 1; lun <= kHighestLun; ++lun) {
      if (entry.record.disks.try_emplace(lun, disk).second) return lun;
    }
    return absl::ResourceExhaustedError("all 255 LUNs are in use");
  }

  Status Detach(FakeVmEntry& entry, std::uint32_t lun) {
    const MutexLock lock(mutex_);
    if (!entry.record.alive) return absl::UnavailableError("the VM has ended");
    entry.record.disks.erase(lun);
    return absl::OkStatus();
  }

  Status Share(FakeVmEntry& entry, const SharedDirectory& directory) {
    const MutexLock lock(mutex_);
    if (!entry.record.alive) return absl::UnavailableError("the VM has ended");
    if (!directory.directory.valid()) return absl::InvalidArgumentError("a share needs a directory");
    entry.record.shares.try_emplace(directory.tag, FakeShare{.path = directory.path,
                                                             .read_only = directory.read_only,
                                                             .immediate = directory.immediate,
                                                             .alone = directory.alone});
    return absl::OkStatus();
  }

  Status Follow(FakeVmEntry& entry, const FollowedShare& share, std::vector<std::string>& gone) {
    const MutexLock lock(mutex_);
    if (!entry.record.alive) return absl::UnavailableError("the VM has ended");
    const auto found = entry.record.shares.find(share.tag);
    if (found == entry.record.shares.end()) return absl::NotFoundError("there is no such share");
    ++found->second.followed;
    gone = std::exchange(found->second.gone, {});
    return absl::OkStatus();
  }

  void SetGone(const std::string& id, const std::string& tag, std::vector<std::string> gone) {
    const MutexLock lock(mutex_);
    for (const auto& entry : entries_) {
      if (entry->record.id != id) continue;
      if (const auto share = entry->record.shares.find(tag); share != entry->record.shares.end()) {
        share->second.gone = gone;
      }
    }
  }

  Status EndShare(FakeVmEntry& entry, const std::string& tag) {
    const MutexLock lock(mutex_);
    if (!entry.record.alive) return absl::UnavailableError("the VM has ended");
    entry.record.shares.erase(tag);
    return absl::OkStatus();
  }

  Status Plug(FakeVmEntry& entry, std::uint64_t bytes) {
    const MutexLock lock(mutex_);
    if (!entry.record.alive) return absl::UnavailableError("the VM has ended");
    const std::uint64_t most = entry.record.maximum_memory_bytes - entry.record.memory_bytes;
    if (bytes > most) return absl::ResourceExhaustedError(absl::StrCat(bytes, " is more than ", most, " bytes"));
    entry.record.requested_bytes = bytes;
    if (!keep_memory_ || bytes > entry.record.plugged_bytes) entry.record.plugged_bytes = bytes;
    return absl::OkStatus();
  }

  void KeepMemory(bool keep) {
    std::vector<std::pair<std::shared_ptr<MemoryNotifier>, std::uint64_t>> changed;
    {
      const MutexLock lock(mutex_);
      keep_memory_ = keep;
      for (const auto& entry : entries_) {
        if (keep || entry->record.plugged_bytes == entry->record.requested_bytes) continue;
        entry->record.plugged_bytes = entry->record.requested_bytes;
        changed.emplace_back(entry->memory_notifier, entry->record.plugged_bytes);
      }
    }
    for (const auto& [notifier, bytes] : changed) notifier->Tell(bytes);
  }

  Status SetVcpus(FakeVmEntry& entry, std::uint32_t count) {
    const MutexLock lock(mutex_);
    if (!entry.record.alive) return absl::UnavailableError("the VM has ended");
    if (count == 0) return absl::InvalidArgumentError("a VM needs a vCPU");
    if (count > entry.record.maximum_vcpus) return absl::ResourceExhaustedError("so many vCPUs it cannot have");
    entry.record.vcpus = count;
    return absl::OkStatus();
  }

 private:
  struct Failure {
    Status error;
    int successes = 0;
  };

  std::shared_ptr<FakeVmEntry> Find(const std::string& state_directory) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const auto& entry : entries_) {
      if (entry->record.alive && entry->record.state_directory == state_directory) return entry;
    }
    return nullptr;
  }

  void DeliverExits() {
    for (;;) {
      std::vector<std::shared_ptr<ExitNotifier>> notifiers;
      {
        const MutexLock lock(mutex_);
        while (to_deliver_.empty() && !stopping_) changed_.Wait(mutex_);
        if (to_deliver_.empty()) return;
        notifiers.swap(to_deliver_);
      }
      for (const auto& notifier : notifiers) notifier->Deliver();
    }
  }

  mutable Mutex mutex_;
  ConditionVariable changed_;
  std::map<FakeOperation, Failure> failures_ ABSL_GUARDED_BY(mutex_);
  bool hold_starts_ ABSL_GUARDED_BY(mutex_) = false;
  int held_starts_ ABSL_GUARDED_BY(mutex_) = 0;
  pid_t next_pid_ ABSL_GUARDED_BY(mutex_) = kFirstPid;
  std::vector<std::shared_ptr<FakeVmEntry>> entries_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<ExitNotifier>> to_deliver_ ABSL_GUARDED_BY(mutex_);
  bool keep_memory_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses all the others
};

namespace {

class FakeVm final : public Vm {
 public:
  FakeVm(std::shared_ptr<FakeMachine::State> state, std::shared_ptr<FakeVmEntry> entry)
      : state_(std::move(state)),
        entry_(std::move(entry)),
        notifier_(entry_->notifier),
        memory_notifier_(entry_->memory_notifier),
        state_directory_(entry_->record.state_directory) {}
  FakeVm(const FakeVm&) = delete;
  FakeVm& operator=(const FakeVm&) = delete;
  ~FakeVm() override {
    notifier_->Detach();
    memory_notifier_->SetCallback(nullptr);
  }

  [[nodiscard]] std::string agent_socket() const override { return state_directory_ + "/agent.sock"; }

  StatusOr<VmInformation> Information(const Context& context) override {
    HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kInformation));
    const FakeVmRecord record = state_->Record(*entry_);
    if (!record.alive) return absl::UnavailableError("the VM has ended");
    return VmInformation{.process = record.process,
                         .accelerator = Accelerator::kTcg,
                         .command_line = {"fake", record.id},
                         .vcpus = record.vcpus,
                         .maximum_vcpus = record.maximum_vcpus,
                         .memory_bytes = record.memory_bytes + record.plugged_bytes,
                         .requested_memory_bytes = record.memory_bytes + record.requested_bytes,
                         .boot_memory_bytes = record.memory_bytes,
                         .maximum_memory_bytes = record.maximum_memory_bytes};
  }

  StatusOr<std::uint32_t> AttachDisk(const Context& context, const DiskConfig& disk) override {
    HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kAttachDisk));
    if (disk.extents.empty()) return absl::InvalidArgumentError("a disk needs an extent");
    return state_->Attach(*entry_, disk);
  }

  Status DetachDisk(const Context& context, std::uint32_t lun) override {
    HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kDetachDisk));
    return state_->Detach(*entry_, lun);
  }

  StatusOr<std::vector<std::uint32_t>> AttachedDisks(const Context& context) override {
    HUSK_RETURN_IF_ERROR(context.Check());
    const FakeVmRecord record = state_->Record(*entry_);
    if (!record.alive) return absl::UnavailableError("the VM has ended");
    std::vector<std::uint32_t> luns;
    luns.reserve(record.disks.size());
    for (const auto& [lun, disk] : record.disks) luns.push_back(lun);
    return luns;
  }

  Status AttachSharedDirectory(const Context& context, const SharedDirectory& directory) override {
    HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kAttachShare));
    return state_->Share(*entry_, directory);
  }

  Status FollowMounts(const Context& context, const FollowedShare& share, std::vector<std::string>& gone) override {
    HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kFollowMounts));
    return state_->Follow(*entry_, share, gone);
  }

  Status DetachSharedDirectory(const Context& context, const std::string& tag) override {
    HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kDetachShare));
    return state_->EndShare(*entry_, tag);
  }

  Status SetPluggedMemory(const Context& context, std::uint64_t bytes) override {
    HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kPlugMemory));
    return state_->Plug(*entry_, bytes);
  }

  Status SetVcpus(const Context& context, std::uint32_t count) override {
    HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kSetVcpus));
    return state_->SetVcpus(*entry_, count);
  }

  StatusOr<std::vector<std::string>> SharedDirectories(const Context& context) override {
    HUSK_RETURN_IF_ERROR(context.Check());
    const FakeVmRecord record = state_->Record(*entry_);
    if (!record.alive) return absl::UnavailableError("the VM has ended");
    std::vector<std::string> tags;
    for (const auto& [tag, share] : record.shares) tags.push_back(tag);
    return tags;
  }

  void OnPluggedMemory(std::function<void(std::uint64_t bytes)> callback) override {
    memory_notifier_->SetCallback(std::move(callback));
  }

  void OnExit(std::function<void(const VmExit&)> callback) override {
    notifier_->SetCallback(std::move(callback));
    state_->DeliverLater(notifier_);
  }

  [[nodiscard]] bool alive() const override { return state_->Record(*entry_).alive; }

  Status Kill(const Context& context) override {
    HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kKill));
    const pid_t pid = state_->Record(*entry_).process.pid;
    state_->EndWhere([pid](const FakeVmRecord& record) { return record.process.pid == pid; }, "killed by signal 9");
    return absl::OkStatus();
  }

  [[nodiscard]] std::string ConsoleTail(const Context& /*context*/) override {
    return absl::StrCat("console of ", state_->Record(*entry_).id, "\n");
  }

 private:
  const std::shared_ptr<FakeMachine::State> state_;
  const std::shared_ptr<FakeVmEntry> entry_;
  const std::shared_ptr<ExitNotifier> notifier_;
  const std::shared_ptr<MemoryNotifier> memory_notifier_;
  const std::string state_directory_;
};

Status CheckConfig(const VmConfig& config) {
  if (config.id.empty()) return absl::InvalidArgumentError("a VM needs an id");
  if (config.state_directory.empty()) return absl::InvalidArgumentError("a VM needs a state directory");
  if (config.user == 0) return absl::InvalidArgumentError("a VM never runs as user 0");
  if (config.vcpus == 0 || config.maximum_vcpus < config.vcpus) return absl::InvalidArgumentError("vcpus");
  if (config.memory_bytes == 0 || config.maximum_memory_bytes < config.memory_bytes) {
    return absl::InvalidArgumentError("memory_bytes");
  }
  return absl::OkStatus();
}

}  // namespace

FakeMachine::FakeMachine() : state_(std::make_shared<State>()) {}
FakeMachine::~FakeMachine() = default;

void FakeMachine::FailNext(FakeOperation operation, Status error, int successes) {
  state_->FailNext(operation, std::move(error), successes);
}

void FakeMachine::HoldStarts() {
  state_->HoldStarts(true);
}

void FakeMachine::ReleaseStarts() {
  state_->HoldStarts(false);
}

void FakeMachine::WaitForHeldStarts(int count) {
  state_->WaitForHeldStarts(count);
}

void FakeMachine::SetGone(const std::string& id, const std::string& tag, std::vector<std::string> gone) {
  state_->SetGone(id, tag, std::move(gone));
}

bool FakeMachine::KillVm(const std::string& id, const std::string& reason) {
  return state_->EndWhere([&id](const FakeVmRecord& record) { return record.id == id; }, reason);
}

void FakeMachine::Reboot() {
  state_->EndWhere([](const FakeVmRecord&) { return true; }, "the host was rebooted");
}

void FakeMachine::KeepMemory(bool keep) {
  state_->KeepMemory(keep);
}

std::vector<FakeVmRecord> FakeMachine::vms() const {
  return state_->Records();
}

std::optional<FakeVmRecord> FakeMachine::vm(const std::string& id) const {
  const auto records = state_->Records();
  const auto found =
      std::find_if(records.rbegin(), records.rend(), [&id](const FakeVmRecord& record) { return record.id == id; });
  if (found == records.rend()) return std::nullopt;
  return *found;
}

int FakeMachine::alive_count() const {
  const auto records = state_->Records();
  return static_cast<int>(
      std::count_if(records.begin(), records.end(), [](const FakeVmRecord& record) { return record.alive; }));
}

FakeHypervisor::FakeHypervisor(const FakeMachine& machine) : state_(machine.state_) {}

AcceleratorProbe FakeHypervisor::accelerator() const {
  return {.accelerator = Accelerator::kTcg, .reason = "this hypervisor is a fake"};
}

StatusOr<std::string> FakeHypervisor::Version(const Context& context) {
  HUSK_RETURN_IF_ERROR(context.Check());
  return "0.0.0";
}

StatusOr<std::unique_ptr<Vm>> FakeHypervisor::Start(const Context& context, VmConfig config) {
  HUSK_RETURN_IF_ERROR_DOING(CheckConfig(config), absl::StrCat("start VM ", config.id));
  HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kStart));
  HUSK_RETURN_IF_ERROR(state_->WaitWhileHeld(context));
  HUSK_ASSIGN_OR_RETURN(auto entry, state_->Add(std::move(config)));
  return std::make_unique<FakeVm>(state_, std::move(entry));
}

StatusOr<std::unique_ptr<Vm>> FakeHypervisor::Recover(const Context& context, const std::string& state_directory) {
  HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kRecover));
  HUSK_ASSIGN_OR_RETURN(auto entry, state_->Adopt(state_directory));
  return std::make_unique<FakeVm>(state_, std::move(entry));
}

Status FakeHypervisor::Destroy(const Context& context, const std::string& state_directory) {
  HUSK_RETURN_IF_ERROR(state_->Check(context, FakeOperation::kDestroy));
  state_->EndWhere([&state_directory](const FakeVmRecord& record) { return record.state_directory == state_directory; },
                   "killed by signal 9");
  return absl::OkStatus();
}

}  // namespace husk::hypervisor
