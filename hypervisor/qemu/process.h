// A process that husk-vm-launcher became: who it is, whether it lives, how it ended.
#ifndef HUSK_HYPERVISOR_QEMU_PROCESS_H_
#define HUSK_HYPERVISOR_QEMU_PROCESS_H_

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "hypervisor/exit_notifier.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/qemu/io_thread.h"

namespace husk::hypervisor {

// The "identity" file that husk-vm-launcher writes.
struct StoredIdentity {
  ProcessIdentity process;
  std::string boot_id;  // of the kernel under which it ran
};
StatusOr<StoredIdentity> ParseIdentity(const std::string& text);
// NOT_FOUND if the directory has none.
StatusOr<StoredIdentity> ReadIdentity(int state_directory);

// Field 22 of /proc/PID/stat.
StatusOr<std::uint64_t> ParseStartTime(const std::string& stat);
// A pidfd of that very process, not of a later one with its pid. NOT_FOUND if it has ended, reaped or not.
StatusOr<UniqueFd> OpenProcess(const ProcessIdentity& identity);
// The same, NOT_FOUND also if it ran before the last boot.
StatusOr<UniqueFd> OpenProcess(const StoredIdentity& identity);

// SIGKILL, then waits until it is gone, and reaps it if it is our child. OK if it is gone already.
Status KillProcess(const Context& context, const UniqueFd& pidfd);

// The last line of text that is no warning of QEMU's, fit to be printed; empty if there is none.
std::string LastWords(const std::string& log);
// From what waitid(2) says (`code` 0: it was not our child), what the program printed and, of QEMU, what it told over
// QMP.
std::string DescribeExit(const std::string& program, int code, int status, const std::string& last_words,
                         const std::string& hint);

// Watches one process from the I/O thread until it ends, whether or not anybody holds this object: children must be
// reaped. Thread safe.
class VmProcess : public std::enable_shared_from_this<VmProcess> {
 public:
  // `program`: its name in texts. `log`: its standard error, readable and writable: it is emptied when it has grown too
  // long, since a guest may know how to make the program complain.
  static StatusOr<std::shared_ptr<VmProcess>> Watch(IoThread& io_thread, std::string program,
                                                    const ProcessIdentity& identity, UniqueFd pidfd, UniqueFd log);

  [[nodiscard]] const ProcessIdentity& identity() const { return identity_; }
  [[nodiscard]] bool alive() const;
  // Why the guest ended, as told by QMP before the process did.
  void SetHint(std::string hint);

  void OnExit(ExitNotifier::Callback callback);
  void DropCallback() { notifier_.Detach(); }

  // Until the process has ended and OnExit's callback was called.
  StatusOr<VmExit> WaitForExit(const Context& context);
  Status Kill(const Context& context);
  // Kills it unless it ends by itself within `grace`; `reason` is then what OnExit tells. Returns at once.
  void KillLater(std::chrono::milliseconds grace, std::string reason);

 private:
  VmProcess(IoThread& io_thread, std::string program, const ProcessIdentity& identity, UniqueFd log);
  void WaitEnded();
  void Ended();
  void BoundLog();

  IoThread& io_thread_;
  const std::string program_;
  const ProcessIdentity identity_;
  const UniqueFd log_;
  boost::asio::posix::stream_descriptor pidfd_;
  boost::asio::steady_timer log_timer_;
  ExitNotifier notifier_;

  mutable Mutex mutex_;
  ConditionVariable changed_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool told_ ABSL_GUARDED_BY(mutex_) = false;  // the callback has returned
  std::string hint_ ABSL_GUARDED_BY(mutex_);
  std::string killed_because_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_PROCESS_H_
