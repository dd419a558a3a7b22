// Memory that a QemuVm gets and gives back while it runs: its one virtio-mem device.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/rollback.h"
#include "hypervisor/qemu/memory_device.h"
#include "hypervisor/qemu/qemu_vm.h"

namespace husk::hypervisor {
namespace {

constexpr auto kGuestPatience = std::chrono::seconds(60);
constexpr auto kReleaseWait = std::chrono::seconds(5);
constexpr auto kUndoTimeout = std::chrono::seconds(15);
// QEMU tells of a new size once a second at most, so it is asked: often at first, as a gibibyte comes within a tenth of
// a second, and later at intervals of a thirty-second part of what was waited.
constexpr std::chrono::milliseconds kFirstLook{2};
constexpr std::chrono::milliseconds kLastLook{20};
// What Linux takes at once of a device like this; of less it takes nothing, and waits.
constexpr std::uint64_t kStep = std::uint64_t{4} << 20;

class Looks {
 public:
  explicit Looks(const Context& context) : context_(context) {}
  Status Pause() {
    const auto waited = Context::Clock::now() - started_;
    return SleepFor(context_, std::clamp<Context::Clock::duration>(waited / 32, kFirstLook, kLastLook));
  }

 private:
  const Context& context_;
  const Context::Clock::time_point started_ = Context::Clock::now();
};

Status AwaitSize(const Context& context, QmpClient& qmp, std::uint64_t bytes) {
  const Context limited = context.WithTimeout(kGuestPatience);
  Looks looks(limited);
  for (;;) {
    HUSK_ASSIGN_OR_RETURN(const std::uint64_t size, PluggedMemory(context, qmp));
    if (size >= bytes) return absl::OkStatus();
    if (looks.Pause().ok()) continue;
    HUSK_RETURN_IF_ERROR(context.Check());
    return absl::ResourceExhaustedError(absl::StrCat("the guest has taken ", size, " of them"));
  }
}

// An idle guest does it in less.
Status AwaitRelease(const Context& context, QmpClient& qmp, std::uint64_t bytes) {
  const Context limited = context.WithTimeout(kReleaseWait);
  Looks looks(limited);
  for (;;) {
    HUSK_ASSIGN_OR_RETURN(const std::uint64_t size, PluggedMemory(context, qmp));
    if (size <= bytes + kMemoryThatMayStay || !looks.Pause().ok()) return absl::OkStatus();
  }
}

}  // namespace

void QemuVm::OnPluggedMemory(std::function<void(std::uint64_t bytes)> callback) {
  memory_notifier_->SetCallback(std::move(callback));
}

Status QemuVm::SetPluggedMemory(const Context& context, std::uint64_t bytes) {
  const std::string doing = absl::StrCat("plug ", bytes, " bytes of memory");
  if (bytes % kStep != 0) return absl::InvalidArgumentError(absl::StrCat(doing, ": no multiple of ", kStep));
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR_DOING(turn.Take(context), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const auto qmp, Qmp(context), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const Fixed fixed, FixedOf(context, *qmp), doing);
  if (bytes > fixed.maximum_plugged_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(doing, ": the VM can have ", fixed.maximum_plugged_bytes, " beside those it was started with"));
  }
  if (fixed.maximum_plugged_bytes == 0) return absl::OkStatus();
  HUSK_ASSIGN_OR_RETURN_DOING(const std::uint64_t requested, RequestedPluggedMemory(context, *qmp), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const std::uint64_t size, PluggedMemory(context, *qmp), doing);
  if (bytes == requested && bytes <= size) return absl::OkStatus();
  // What cannot be undone is memory that the guest may take later; it does no harm.
  Rollback rollback(context, kUndoTimeout, [](const std::string& /*step*/, const Status& /*status*/) {});
  rollback.Add("ask for what it was", [&](const Context& undo) { return RequestPluggedMemory(undo, *qmp, requested); });
  HUSK_RETURN_IF_ERROR_DOING(RequestPluggedMemory(context, *qmp, bytes), doing);
  if (bytes > size) HUSK_RETURN_IF_ERROR_DOING(AwaitSize(context, *qmp, bytes), doing);
  rollback.Commit();
  return bytes < size ? AwaitRelease(context, *qmp, bytes) : absl::OkStatus();
}

}  // namespace husk::hypervisor
