#include "hypervisor/qemu/memory_device.h"

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/command_line.h"

namespace husk::hypervisor {
namespace {

using nlohmann::json;

json PropertyArguments(const char* property) {
  return {{"path", absl::StrCat("/machine/peripheral/", kMemoryDevice)}, {"property", property}};
}

StatusOr<std::uint64_t> Property(const Context& context, QmpClient& qmp, const char* name) {
  HUSK_ASSIGN_OR_RETURN(const json value, qmp.Execute(context, "qom-get", PropertyArguments(name)));
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  return absl::InternalError(absl::StrCat("QMP qom-get: the memory device's ", name, " is no number"));
}

}  // namespace

StatusOr<std::uint64_t> MaximumPluggedMemory(const Context& context, QmpClient& qmp) {
  HUSK_ASSIGN_OR_RETURN(const json devices, qmp.Execute(context, "query-memory-devices"));
  if (!devices.is_array()) return absl::InternalError("QMP query-memory-devices: the reply is no list");
  for (const json& device : devices) {
    const json data = device.is_object() ? device.value("data", json()) : json();
    if (!data.is_object() || data.value("id", json()) != kMemoryDevice) continue;
    const json maximum = data.value("max-size", json());
    if (maximum.is_number_unsigned()) return maximum.get<std::uint64_t>();
    return absl::InternalError("QMP query-memory-devices: max-size is no number");
  }
  return 0;
}

StatusOr<std::uint64_t> PluggedMemory(const Context& context, QmpClient& qmp) {
  return Property(context, qmp, "size");
}

StatusOr<std::uint64_t> RequestedPluggedMemory(const Context& context, QmpClient& qmp) {
  return Property(context, qmp, "requested-size");
}

Status RequestPluggedMemory(const Context& context, QmpClient& qmp, std::uint64_t bytes) {
  json arguments = PropertyArguments("requested-size");
  arguments["value"] = bytes;
  return qmp.Execute(context, "qom-set", arguments).status();
}

std::optional<std::uint64_t> PluggedMemoryOf(const QmpEvent& event) {
  if (event.name != "MEMORY_DEVICE_SIZE_CHANGE" || !event.data.is_object()) return std::nullopt;
  const json size = event.data.value("size", json());
  if (event.data.value("id", json()) != kMemoryDevice || !size.is_number_unsigned()) return std::nullopt;
  return size.get<std::uint64_t>();
}

}  // namespace husk::hypervisor
