// A VM that QEMU has stopped because the host's disk is full, and that goes on once there is room.
#ifndef HUSK_HYPERVISOR_QEMU_DISK_STALL_H_
#define HUSK_HYPERVISOR_QEMU_DISK_STALL_H_

#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "agent/common/mutex.h"
#include "hypervisor/qemu/io_thread.h"
#include "hypervisor/qemu/qmp_client.h"

namespace husk::hypervisor {

// QEMU stops a VM when a write to its scratch disk finds no space: the guest's file system would lose what it had
// promised, and turn read-only for good. Nobody but us lets it go on. It is asked to every few seconds, as nothing
// tells when a file system has room again; a write that fails once more stops it once more. docs/adr/0113.
class DiskStall : public std::enable_shared_from_this<DiskStall> {
 public:
  // `name`: of the VM, for the log. A shorter `interval` is for tests.
  DiskStall(IoThread& io_thread, std::string name, std::chrono::milliseconds interval = std::chrono::seconds(5));

  // QMP's events. On the I/O thread.
  void Handle(const QmpEvent& event);
  // The connection for asking; the stall does not keep it. Thread safe.
  void SetClient(const std::shared_ptr<QmpClient>& client);
  // The VM was found stopped. Thread safe.
  void Begin();

 private:
  // On the I/O thread.
  void Stopped();
  void Retry();

  const std::string name_;
  const std::chrono::milliseconds interval_;
  IoThread& io_thread_;
  // Of the I/O thread alone.
  boost::asio::steady_timer timer_;
  bool stopped_ = false;  // since the last time that the log said so

  Mutex mutex_;
  std::weak_ptr<QmpClient> client_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_DISK_STALL_H_
