#include "hypervisor/qemu/share_operations.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/command_line.h"
#include "hypervisor/qemu/disk_operations.h"
#include "hypervisor/qemu/file_server.h"

namespace husk::hypervisor {
namespace {

using nlohmann::json;

constexpr char kPrefix[] = "share";
// More requests at once than QEMU's default of 128, for large reads and writes.
constexpr int kQueueSize = 1024;

Status RemoveChardev(const Context& context, QmpClient& qmp, const std::string& name) {
  Status removed = qmp.Execute(context, "chardev-remove", {{"id", name}}).status();
  // QEMU has only this text to tell a missing one from one in use.
  if (!removed.ok() && absl::StrContains(removed.message(), "not found")) return absl::OkStatus();
  return removed;
}

// Those of `list`, an array of objects, that name a share by `member`.
SharePorts Shares(const json& list, const char* member) {
  SharePorts ports;
  for (const auto& entry : list) {
    if (!entry.is_object() || !entry.contains(member) || !entry[member].is_string()) continue;
    std::uint32_t port = 0;
    std::string tag;
    if (ParseShareName(entry[member].get<std::string>(), port, tag)) ports[tag] = port;
  }
  return ports;
}

}  // namespace

std::string ShareName(std::uint32_t port, const std::string& tag) {
  return absl::StrCat(kPrefix, port, "-", tag);
}

bool ParseShareName(std::string_view name, std::uint32_t& port, std::string& tag) {
  if (!name.starts_with(kPrefix)) return false;
  name.remove_prefix(sizeof kPrefix - 1);
  const auto dash = name.find('-');
  if (dash == std::string_view::npos) return false;
  const std::string number(name.substr(0, dash));
  if (!absl::SimpleAtoi(number, &port) || port >= kSharePorts) return false;
  tag = std::string(name.substr(dash + 1));
  return IsShareTag(tag);
}

StatusOr<SharePorts> AttachedShares(const Context& context, QmpClient& qmp) {
  HUSK_ASSIGN_OR_RETURN(const json children, qmp.Execute(context, "qom-list", {{"path", "/machine/peripheral"}}));
  return Shares(children, "name");
}

Status AddShare(const Context& context, QmpClient& qmp, std::uint32_t port, const std::string& tag,
                UniqueFd connection) {
  const std::string name = ShareName(port, tag);
  HUSK_RETURN_IF_ERROR(qmp.Execute(context, "getfd", {{"fdname", name}}, std::move(connection)).status());
  const json backend = {
      {"type", "socket"},
      {"data", {{"server", false}, {"addr", {{"type", "fd"}, {"data", {{"str", name}}}}}}},
  };
  HUSK_RETURN_IF_ERROR(qmp.Execute(context, "chardev-add", {{"id", name}, {"backend", backend}}).status());
  return qmp
      .Execute(context, "device_add",
               {{"driver", "vhost-user-fs-pci"},
                {"id", name},
                {"chardev", name},
                {"tag", tag},
                {"queue-size", kQueueSize},
                {"bus", SharePortName(port)}})
      .status();
}

Status RemoveShare(const Context& context, QmpClient& qmp, std::uint32_t port, const std::string& tag) {
  const std::string name = ShareName(port, tag);
  HUSK_RETURN_IF_ERROR(RemoveDevice(context, qmp, name));
  return RemoveChardev(context, qmp, name);
}

Status RemoveHalfAddedShares(const Context& context, QmpClient& qmp) {
  HUSK_ASSIGN_OR_RETURN(const auto whole, AttachedShares(context, qmp));
  HUSK_ASSIGN_OR_RETURN(const json chardevs, qmp.Execute(context, "query-chardev"));
  for (const auto& [tag, port] : Shares(chardevs, "label")) {
    if (whole.contains(tag)) continue;
    HUSK_RETURN_IF_ERROR(RemoveChardev(context, qmp, ShareName(port, tag)));
  }
  return absl::OkStatus();
}

}  // namespace husk::hypervisor
