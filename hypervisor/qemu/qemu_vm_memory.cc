// Memory that a QemuVm gets and gives back while it runs: its one virtio-mem device.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/rollback.h"
#include "hypervisor/qemu/command_line.h"
#include "hypervisor/qemu/memory_device.h"
#include "hypervisor/qemu/qemu_vm.h"

namespace husk::hypervisor {
namespace {

using nlohmann::json;

constexpr auto kGuestPatience = std::chrono::seconds(60);
constexpr auto kReleaseWait = std::chrono::seconds(5);
constexpr auto kUndoTimeout = std::chrono::seconds(15);
// QEMU tells of a new size once a second at most, so it is asked: often at first, as a gibibyte comes within a tenth of
// a second, and later at intervals of a thirty-second part of what was waited.
constexpr std::chrono::milliseconds kFirstLook{2};
constexpr std::chrono::milliseconds kLastLook{20};
// What Linux takes at once of a device like this; of less it takes nothing, and waits.
constexpr std::uint64_t kStep = std::uint64_t{4} << 20;

struct MemoryDevice {
  std::uint64_t requested = 0;
  std::uint64_t size = 0;  // what the guest has taken
  std::uint64_t maximum = 0;
};

StatusOr<MemoryDevice> ReadDevice(const Context& context, QmpClient& qmp) {
  HUSK_ASSIGN_OR_RETURN(const json devices, qmp.Execute(context, "query-memory-devices"));
  MemoryDevice result;
  if (!devices.is_array()) return absl::InternalError("QMP query-memory-devices: the reply is no list");
  for (const json& device : devices) {
    const json data = device.is_object() ? device.value("data", json()) : json();
    if (!data.is_object() || data.value("id", json()) != kMemoryDevice) continue;
    const auto number = [&data](const char* name) {
      const json value = data.value(name, json());
      return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
    };
    result = {.requested = number("requested-size"), .size = number("size"), .maximum = number("max-size")};
  }
  return result;
}

std::string DevicePath() {
  return absl::StrCat("/machine/peripheral/", kMemoryDevice);
}

Status Request(const Context& context, QmpClient& qmp, std::uint64_t bytes) {
  const json arguments{{"path", DevicePath()}, {"property", "requested-size"}, {"value", bytes}};
  return qmp.Execute(context, "qom-set", arguments).status();
}

// What the guest has taken. For a list of devices QEMU goes through all that the machine is made of, which takes it two
// milliseconds of the pod's CPU time; who looks all the time asks for this.
StatusOr<std::uint64_t> Size(const Context& context, QmpClient& qmp) {
  HUSK_ASSIGN_OR_RETURN(const json size,
                        qmp.Execute(context, "qom-get", {{"path", DevicePath()}, {"property", "size"}}));
  if (!size.is_number_unsigned()) return absl::InternalError("QMP qom-get: the size of the memory is no number");
  return size.get<std::uint64_t>();
}

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
    HUSK_ASSIGN_OR_RETURN(const std::uint64_t size, Size(context, qmp));
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
    HUSK_ASSIGN_OR_RETURN(const std::uint64_t size, Size(context, qmp));
    if (size <= bytes + kMemoryThatMayStay || !looks.Pause().ok()) return absl::OkStatus();
  }
}

}  // namespace

std::optional<std::uint64_t> PluggedMemoryOf(const QmpEvent& event) {
  if (event.name != "MEMORY_DEVICE_SIZE_CHANGE" || !event.data.is_object()) return std::nullopt;
  const json size = event.data.value("size", json());
  if (event.data.value("id", json()) != kMemoryDevice || !size.is_number_unsigned()) return std::nullopt;
  return size.get<std::uint64_t>();
}

void QemuVm::OnPluggedMemory(std::function<void(std::uint64_t bytes)> callback) {
  memory_notifier_->SetCallback(std::move(callback));
}

Status QemuVm::SetPluggedMemory(const Context& context, std::uint64_t bytes) {
  const std::string doing = absl::StrCat("plug ", bytes, " bytes of memory");
  if (bytes % kStep != 0) return absl::InvalidArgumentError(absl::StrCat(doing, ": no multiple of ", kStep));
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR_DOING(turn.Take(context), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const auto qmp, Qmp(context), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const MemoryDevice before, ReadDevice(context, *qmp), doing);
  if (bytes > before.maximum) {
    return absl::ResourceExhaustedError(
        absl::StrCat(doing, ": the VM can have ", before.maximum, " beside those it was started with"));
  }
  if (bytes == before.requested && bytes <= before.size) return absl::OkStatus();
  // What cannot be undone is memory that the guest may take later; it does no harm.
  Rollback rollback(context, kUndoTimeout, [](const std::string& /*step*/, const Status& /*status*/) {});
  rollback.Add("ask for what it was", [&](const Context& undo) { return Request(undo, *qmp, before.requested); });
  HUSK_RETURN_IF_ERROR_DOING(Request(context, *qmp, bytes), doing);
  if (bytes > before.size) HUSK_RETURN_IF_ERROR_DOING(AwaitSize(context, *qmp, bytes), doing);
  rollback.Commit();
  return bytes < before.size ? AwaitRelease(context, *qmp, bytes) : absl::OkStatus();
}

}  // namespace husk::hypervisor
