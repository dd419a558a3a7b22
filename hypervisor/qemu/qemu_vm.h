// One QEMU, as a Vm.
#ifndef HUSK_HYPERVISOR_QEMU_QEMU_VM_H_
#define HUSK_HYPERVISOR_QEMU_QEMU_VM_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/common/mutex.h"
#include "agent/common/unique_fd.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/memory_notifier.h"
#include "hypervisor/qemu/disk_stall.h"
#include "hypervisor/qemu/file_server.h"
#include "hypervisor/qemu/io_thread.h"
#include "hypervisor/qemu/process.h"
#include "hypervisor/qemu/qmp_client.h"
#include "hypervisor/qemu/wait.h"

namespace husk::hypervisor {

class QemuVm final : public Vm {
 public:
  QemuVm(std::shared_ptr<IoThread> io_thread, std::shared_ptr<const FileServerOptions> file_servers,
         std::shared_ptr<VmProcess> process, std::string state_directory, UniqueFd directory);
  QemuVm(const QemuVm&) = delete;
  QemuVm& operator=(const QemuVm&) = delete;
  ~QemuVm() override;

  // Connects QMP and waits until the VM runs, or stands still for want of space (DiskStall). UNAVAILABLE when QEMU ends
  // meanwhile.
  Status AwaitRunning(const Context& context);
  // Frees what an AttachDisk left behind whose huskd died.
  Status RemoveHalfAttachedDisks(const Context& context);
  // The same for shared directories; watches the servers of the others. NOT_FOUND if one has ended: the VM must, too.
  Status AdoptSharedDirectories(const Context& context);

  [[nodiscard]] std::string agent_socket() const override;
  [[nodiscard]] StatusOr<VmInformation> Information(const Context& context) override;
  StatusOr<std::uint32_t> AttachDisk(const Context& context, const DiskConfig& disk) override;
  Status DetachDisk(const Context& context, std::uint32_t lun) override;
  [[nodiscard]] StatusOr<std::vector<std::uint32_t>> AttachedDisks(const Context& context) override;
  Status AttachSharedDirectory(const Context& context, const SharedDirectory& directory) override;
  Status FollowMounts(const Context& context, const FollowedShare& share, std::vector<std::string>& gone) override;
  Status DetachSharedDirectory(const Context& context, const std::string& tag) override;
  [[nodiscard]] StatusOr<std::vector<std::string>> SharedDirectories(const Context& context) override;
  Status SetPluggedMemory(const Context& context, std::uint64_t bytes) override;
  void OnPluggedMemory(std::function<void(std::uint64_t bytes)> callback) override;
  Status SetVcpus(const Context& context, std::uint32_t count) override;
  void OnExit(std::function<void(const VmExit&)> callback) override;
  [[nodiscard]] bool alive() const override;
  Status Kill(const Context& context) override;
  [[nodiscard]] std::string ConsoleTail(const Context& context) override;

 private:
  // Calls that change the VM wait for each other here, each no longer than its context allows.
  class Turn {
   public:
    explicit Turn(QemuVm& vm) : vm_(vm) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn();
    Status Take(const Context& context);

   private:
    QemuVm& vm_;
    bool taken_ = false;
  };
  struct Share {
    std::uint32_t port = 0;
    std::shared_ptr<VmProcess> server;
  };

  // What a QEMU says of itself and cannot change.
  struct Fixed {
    bool accelerated = false;
    std::uint64_t boot_memory_bytes = 0;
    std::uint64_t maximum_plugged_bytes = 0;  // beside these
  };
  struct Vcpus {
    std::uint32_t present = 0;
    std::uint32_t maximum = 0;
  };

  // Asks once: each question takes a turn of QEMU's main loop, which an emulated guest that works holds up.
  StatusOr<Fixed> FixedOf(const Context& context, QmpClient& qmp);
  // Asks until it knows that they cannot change: an emulated VM that has all of them keeps them.
  StatusOr<Vcpus> VcpusOf(const Context& context, QmpClient& qmp, bool accelerated);
  // The connection; a new one if the last broke. UNAVAILABLE if the process has ended.
  StatusOr<std::shared_ptr<QmpClient>> Qmp(const Context& context);
  StatusOr<std::shared_ptr<QmpClient>> ConnectQmp(const Context& context);
  // Those that exist as devices, the scratch disk's too.
  static StatusOr<std::set<std::uint32_t>> DeviceLuns(const Context& context, QmpClient& qmp);
  Status ReadConsole(const Context& context);
  StatusOr<std::uint32_t> FreeSharePort();
  void EndWithServer(const std::string& tag, VmProcess& server) const;

  const std::shared_ptr<IoThread> io_thread_;  // first: what follows must not outlive it
  const std::shared_ptr<const FileServerOptions> file_servers_;
  const std::shared_ptr<VmProcess> process_;
  const std::string state_directory_;
  const UniqueFd directory_;
  const std::shared_ptr<DiskStall> stall_;
  const std::shared_ptr<MemoryNotifier> memory_notifier_ = std::make_shared<MemoryNotifier>();

  Mutex mutex_;
  ConditionVariable changed_;
  bool turn_taken_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<QmpClient> qmp_ ABSL_GUARDED_BY(mutex_);
  std::optional<Fixed> fixed_ ABSL_GUARDED_BY(mutex_);
  std::optional<Vcpus> fixed_vcpus_ ABSL_GUARDED_BY(mutex_);
  std::set<std::uint32_t> unusable_luns_ ABSL_GUARDED_BY(mutex_);   // of disks that could not be taken away again
  std::map<std::string, Share> shares_ ABSL_GUARDED_BY(mutex_);     // by tag
  std::set<std::uint32_t> unusable_ports_ ABSL_GUARDED_BY(mutex_);  // of shares that could not be taken away again
  std::string console_ ABSL_GUARDED_BY(mutex_);                     // what was read from QEMU's ring is gone from it
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_QEMU_VM_H_
