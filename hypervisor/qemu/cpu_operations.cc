#include "hypervisor/qemu/cpu_operations.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace husk::hypervisor {
namespace {

using nlohmann::json;

StatusOr<CpuSlot> ParseSlot(const json& entry) {
  const json place = entry.is_object() ? entry.value("props", json()) : json();
  const json type = entry.is_object() ? entry.value("type", json()) : json();
  const json number = place.is_object() ? place.value("socket-id", json()) : json();
  if (!number.is_number_unsigned() || !type.is_string()) {
    return absl::InternalError("QMP query-hotpluggable-cpus: a slot without type or socket-id");
  }
  CpuSlot slot{.number = number.get<std::uint32_t>(), .type = type.get<std::string>(), .place = place, .path = ""};
  const json path = entry.value("qom-path", json());
  if (path.is_string()) slot.path = path.get<std::string>();
  return slot;
}

}  // namespace

StatusOr<std::vector<CpuSlot>> ParseCpuSlots(const json& reply) {
  if (!reply.is_array()) return absl::InternalError("QMP query-hotpluggable-cpus: the reply is no list");
  std::vector<CpuSlot> slots;
  for (const json& entry : reply) {
    HUSK_ASSIGN_OR_RETURN(CpuSlot slot, ParseSlot(entry));
    slots.push_back(std::move(slot));
  }
  std::sort(slots.begin(), slots.end(), [](const CpuSlot& a, const CpuSlot& b) { return a.number < b.number; });
  for (std::size_t index = 0; index < slots.size(); ++index) {
    if (slots[index].number != index) return absl::InternalError("QMP query-hotpluggable-cpus: the slots have gaps");
  }
  return slots;
}

StatusOr<std::vector<CpuSlot>> ReadCpuSlots(const Context& context, QmpClient& qmp) {
  HUSK_ASSIGN_OR_RETURN(const json reply, qmp.Execute(context, "query-hotpluggable-cpus"));
  return ParseCpuSlots(reply);
}

StatusOr<bool> HasKvm(const Context& context, QmpClient& qmp) {
  HUSK_ASSIGN_OR_RETURN(const json kvm, qmp.Execute(context, "query-kvm"));
  return kvm.is_object() && kvm.value("enabled", json()) == true;
}

Status PlugCpu(const Context& context, QmpClient& qmp, const CpuSlot& slot) {
  json arguments = slot.place;
  arguments["driver"] = slot.type;
  arguments["id"] = absl::StrCat("vcpu", slot.number);
  return qmp.Execute(context, "device_add", arguments).status();
}

Status UnplugCpu(const Context& context, QmpClient& qmp, const CpuSlot& slot) {
  const auto refused = std::make_shared<std::atomic<bool>>(false);
  const auto answered = qmp.Expect([refused, path = slot.path, number = slot.number](const QmpEvent& event) {
    const json where = event.data.is_object() ? event.data.value("path", json()) : json();
    if (event.name == "DEVICE_DELETED" && where == path) return true;
    const bool refusal = (event.name == "DEVICE_UNPLUG_GUEST_ERROR" && where == path) || RefusesToEject(event, number);
    if (refusal) refused->store(true);
    return refusal;
  });
  const Status asked = qmp.Execute(context, "device_del", {{"id", slot.path}}).status();
  if (absl::IsNotFound(asked)) return absl::OkStatus();
  // QEMU's words as long as no guest has taken over by ACPI, as in the first moments of its boot.
  if (absl::StrContains(asked.message(), "not supported device type")) {
    return absl::FailedPreconditionError("no guest is there yet that could let it go");
  }
  // An earlier try may have asked for it already; its event comes all the same.
  if (!asked.ok() && !absl::StrContains(asked.message(), "already in the process of unplug")) return asked;
  HUSK_RETURN_IF_ERROR(answered->Wait(context));
  return refused->load() ? absl::FailedPreconditionError("the guest does not let it go") : absl::OkStatus();
}

bool RefusesToEject(const QmpEvent& event, std::uint32_t number) {
  // ACPI 6.3, 6.3.5 _OST: the sources of an ejection, and the two of its status codes that are no refusal.
  constexpr int kEjectRequest = 3;
  constexpr int kOspmEject = 0x103;
  constexpr int kSuccess = 0;
  constexpr int kInProgress = 0x84;
  if (event.name != "ACPI_DEVICE_OST" || !event.data.is_object()) return false;
  const json info = event.data.value("info", json());
  if (!info.is_object() || info.value("slot-type", json()) != "CPU") return false;
  if (info.value("slot", json()) != absl::StrCat(number)) return false;
  const json source = info.value("source", json());
  const json status = info.value("status", json());
  return (source == kEjectRequest || source == kOspmEject) && status != kSuccess && status != kInProgress;
}

}  // namespace husk::hypervisor
