#include "hypervisor/qemu/disk_operations.h"

#include <functional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/command_line.h"

namespace husk::hypervisor {
namespace {

using nlohmann::json;

// Each fdset's descriptor carries the name of its LUN, so that a later huskd can tell whose it is.
StatusOr<std::int64_t> PassDescriptor(const Context& context, QmpClient& qmp, std::uint32_t lun, UniqueFd descriptor) {
  HUSK_ASSIGN_OR_RETURN(const json reply,
                        qmp.Execute(context, "add-fd", {{"opaque", LunName(lun)}}, std::move(descriptor)));
  if (!reply.is_object() || !reply.contains("fdset-id") || !reply["fdset-id"].is_number_integer()) {
    return absl::InternalError("QMP add-fd: the reply names no fdset");
  }
  return reply["fdset-id"].get<std::int64_t>();
}

StatusOr<json> VmdkNode(const Context& context, QmpClient& qmp, std::uint32_t lun, std::vector<OpenedExtent> extents) {
  std::vector<VmdkExtent> passed;
  for (auto& extent : extents) {
    HUSK_ASSIGN_OR_RETURN(const auto fdset, PassDescriptor(context, qmp, lun, std::move(extent.descriptor)));
    passed.push_back({.fdset = fdset, .length = extent.length});
  }
  HUSK_ASSIGN_OR_RETURN(auto file, DescriptorFile(VmdkDescriptor(passed)));
  HUSK_ASSIGN_OR_RETURN(const auto fdset, PassDescriptor(context, qmp, lun, std::move(file)));
  return VmdkBlockNode(LunName(lun), fdset);
}

StatusOr<json> RawNode(const Context& context, QmpClient& qmp, std::uint32_t lun, bool read_only, OpenedExtent extent) {
  HUSK_ASSIGN_OR_RETURN(const auto fdset, PassDescriptor(context, qmp, lun, std::move(extent.descriptor)));
  return RawBlockNode(
      LunName(lun),
      {.fdset = fdset, .length = extent.length, .block_device = extent.block_device, .read_only = read_only});
}

// Calls `visit` with each fdset's id and the LUN it belongs to, where it belongs to one.
Status VisitFdsets(const Context& context, QmpClient& qmp,
                   const std::function<void(std::int64_t, std::uint32_t)>& visit) {
  HUSK_ASSIGN_OR_RETURN(const json sets, qmp.Execute(context, "query-fdsets"));
  for (const auto& set : sets) {
    if (!set.is_object() || !set.contains("fdset-id") || !set["fdset-id"].is_number_integer()) continue;
    if (!set.contains("fds") || !set["fds"].is_array()) continue;
    for (const auto& fd : set["fds"]) {
      if (!fd.is_object() || !fd.contains("opaque") || !fd["opaque"].is_string()) continue;
      if (const auto lun = LunOfName(fd["opaque"].get<std::string>())) {
        visit(set["fdset-id"].get<std::int64_t>(), *lun);
        break;
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

Status RemoveDevice(const Context& context, QmpClient& qmp, const std::string& name) {
  const auto deleted = qmp.Expect([name](const QmpEvent& event) {
    return event.name == "DEVICE_DELETED" && event.data.value("device", json()) == name;
  });
  Status status = qmp.Execute(context, "device_del", {{"id", name}}).status();
  if (absl::IsNotFound(status)) return absl::OkStatus();
  // An earlier try may have asked for it already; its event comes all the same.
  if (!status.ok() && !absl::StrContains(status.message(), "already in the process of unplug")) return status;
  return deleted->Wait(context);
}

Status AddDisk(const Context& context, QmpClient& qmp, std::uint32_t lun, bool read_only,
               std::vector<OpenedExtent> extents) {
  json node;
  if (extents.size() == 1) {
    HUSK_ASSIGN_OR_RETURN(node, RawNode(context, qmp, lun, read_only, std::move(extents[0])));
  } else {
    HUSK_ASSIGN_OR_RETURN(node, VmdkNode(context, qmp, lun, std::move(extents)));
  }
  HUSK_RETURN_IF_ERROR(qmp.Execute(context, "blockdev-add", node).status());
  return qmp.Execute(context, "device_add", ScsiDisk(lun)).status();
}

Status RemoveDisk(const Context& context, QmpClient& qmp, std::uint32_t lun) {
  const std::string name = LunName(lun);
  HUSK_RETURN_IF_ERROR(RemoveDevice(context, qmp, name));
  Status removed = qmp.Execute(context, "blockdev-del", {{"node-name", name}}).status();
  // QEMU has only this text to tell a missing node from one in use.
  if (!removed.ok() && !absl::StrContains(removed.message(), "Failed to find node")) return removed;
  std::set<std::int64_t> fdsets;
  HUSK_RETURN_IF_ERROR(VisitFdsets(context, qmp, [&](std::int64_t fdset, std::uint32_t owner) {
    if (owner == lun) fdsets.insert(fdset);
  }));
  for (const auto fdset : fdsets) {
    const Status status = qmp.Execute(context, "remove-fd", {{"fdset-id", fdset}}).status();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

StatusOr<std::set<std::uint32_t>> LunsWithDescriptors(const Context& context, QmpClient& qmp) {
  std::set<std::uint32_t> luns;
  HUSK_RETURN_IF_ERROR(
      VisitFdsets(context, qmp, [&luns](std::int64_t /*fdset*/, std::uint32_t lun) { luns.insert(lun); }));
  return luns;
}

}  // namespace husk::hypervisor
