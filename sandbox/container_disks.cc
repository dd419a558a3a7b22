#include "sandbox/container_disks.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "sandbox/host_device.h"

namespace husk::sandbox {
namespace {

constexpr char kImagePrefix[] = "image ";
constexpr char kMountFailed[] = "ImageVolumeMountFailed: ";

std::string ImageKey(const std::string& image_id) {
  return absl::StrCat(kImagePrefix, image_id);
}

std::string BlockKey(const HostDevice& device) {
  return absl::StrCat("block ", major(device.number), ":", minor(device.number), device.read_only ? " read-only" : "");
}

hypervisor::DiskConfig DiskOf(const images::ImageLease& lease) {
  hypervisor::DiskConfig disk;
  for (const images::DiskPart& part : lease.disk()) disk.extents.push_back({.path = part.path, .length = part.length});
  return disk;
}

hypervisor::DiskConfig DiskOf(const HostDevice& device) {
  // By the descriptor: whatever the path names by now, the device is the one that was looked at.
  return {.extents = {{.path = absl::StrCat("/proc/self/fd/", device.descriptor.get()), .length = device.size_bytes}},
          .read_only = device.read_only};
}

std::optional<std::uint32_t> FindIn(const std::vector<ContainerDisk>& disks, const std::string& key) {
  const auto found =
      std::find_if(disks.begin(), disks.end(), [&](const ContainerDisk& disk) { return disk.key == key; });
  return found == disks.end() ? std::nullopt : std::optional(found->lun);
}

// Where the pod's VM has it already.
std::optional<std::uint32_t> FindDisk(const Pod& pod, const std::string& key) {
  for (const Container& other : pod.containers()) {
    if (const auto lun = FindIn(other.disks, key)) return lun;
    const auto status = pod.container_status(other.id);
    if (other.lun && status && ImageKey(status->image_id) == key) return other.lun;
  }
  return std::nullopt;
}

}  // namespace

ContainerDisks::ContainerDisks(const Context& context, images::ImageService& images, const Pod& pod,
                               std::shared_ptr<hypervisor::Vm> vm, Rollback& rollback)
    : context_(context), images_(images), pod_(pod), vm_(std::move(vm)), rollback_(rollback) {}

StatusOr<std::uint32_t> ContainerDisks::Attach(const std::string& key, const hypervisor::DiskConfig& disk) {
  if (const auto lun = FindIn(attached_, key)) return *lun;
  std::optional<std::uint32_t> lun = FindDisk(pod_, key);
  if (!lun) {
    HUSK_ASSIGN_OR_RETURN(lun, vm_->AttachDisk(context_, disk));
    rollback_.Add(absl::StrCat("detach ", key), [vm = vm_, lun](const Context& undo) {
      return vm->alive() ? vm->DetachDisk(undo, *lun) : absl::OkStatus();
    });
  }
  attached_.push_back({.key = key, .lun = *lun, .lease = nullptr});
  return *lun;
}

StatusOr<std::uint32_t> ContainerDisks::AttachImage(const images::ImageLease& lease) {
  return Attach(ImageKey(lease.image().id), DiskOf(lease));
}

Status ContainerDisks::AddImageMounts(const std::vector<ContainerMount>& mounts, agent::v1::ContainerSpec& spec) {
  for (const ContainerMount& mount : mounts) {
    if (mount.image.empty()) continue;
    const std::string doing = absl::StrCat(kMountFailed, "mount ", absl::CHexEscape(mount.container_path), ": image ",
                                           absl::CHexEscape(mount.image));
    HUSK_ASSIGN_OR_RETURN_DOING(std::shared_ptr<images::ImageLease> lease, images_.Acquire(mount.image), doing);
    HUSK_ASSIGN_OR_RETURN_DOING(const std::uint32_t lun, AttachImage(*lease), doing);
    const std::string key = ImageKey(lease->image().id);
    if (!FindIn(disks_, key)) disks_.push_back({.key = key, .lun = lun, .lease = std::move(lease)});
    agent::v1::ImageMount& made = *spec.add_image_mounts();
    made.set_lun(lun);
    made.set_sub_path(mount.image_sub_path);
    made.set_destination(mount.container_path);
  }
  return absl::OkStatus();
}

Status ContainerDisks::AddDevices(const std::vector<ContainerDevice>& devices, agent::v1::ContainerSpec& spec) {
  std::set<std::string> paths;
  for (const ContainerDevice& device : devices) {
    const std::string doing = absl::StrCat("device ", absl::CHexEscape(device.container_path));
    if (!paths.insert(device.container_path).second) {
      return absl::InvalidArgumentError(absl::StrCat(doing, ": the container has two devices there"));
    }
    HUSK_RETURN_IF_ERROR_DOING(AddDevice(device, spec), doing);
  }
  return absl::OkStatus();
}

Status ContainerDisks::AddDevice(const ContainerDevice& device, agent::v1::ContainerSpec& spec) {
  HUSK_ASSIGN_OR_RETURN(const HostDevice found, OpenHostDevice(device));
  agent::v1::Device made;
  made.set_path(device.container_path);
  made.set_permissions(device.permissions);
  if (found.node.mode) made.set_mode(*found.node.mode);
  if (found.node.uid) made.set_uid(*found.node.uid);
  if (found.node.gid) made.set_gid(*found.node.gid);
  if (found.descriptor.valid()) {
    const std::string key = BlockKey(found);
    HUSK_ASSIGN_OR_RETURN_DOING(const std::uint32_t lun, Attach(key, DiskOf(found)),
                                absl::StrCat("attach ", absl::CHexEscape(device.host_path)));
    if (!FindIn(disks_, key)) disks_.push_back({.key = key, .lun = lun, .lease = nullptr});
    made.set_lun(lun);
  } else {
    made.set_guest_path(found.guest_path);
  }
  *spec.add_devices() = std::move(made);
  return absl::OkStatus();
}

std::string ImageOfDisk(const ContainerDisk& disk) {
  return absl::StartsWith(disk.key, kImagePrefix) ? disk.key.substr(sizeof kImagePrefix - 1) : "";
}

std::set<std::uint32_t> LunsOf(const Container& container) {
  std::set<std::uint32_t> luns;
  if (container.lun) luns.insert(*container.lun);
  for (const ContainerDisk& disk : container.disks) luns.insert(disk.lun);
  return luns;
}

Status DetachDisks(const Context& context, const Pod& pod, const Container& container) {
  const auto vm = pod.vm();
  if (vm == nullptr || !vm->alive()) return absl::OkStatus();
  std::set<std::uint32_t> others;
  for (const Container& other : pod.containers()) {
    if (other.id != container.id) others.merge(LunsOf(other));
  }
  for (const std::uint32_t lun : LunsOf(container)) {
    if (!others.contains(lun)) {
      HUSK_RETURN_IF_ERROR_DOING(vm->DetachDisk(context, lun), absl::StrCat("detach its disk lun=", lun));
    }
  }
  return absl::OkStatus();
}

Status ExplainImageVolume(const Status& created) {
  const std::size_t found = created.message().find(kMountFailed);
  if (created.ok() || found == absl::string_view::npos) return created;
  return {created.code(), created.message().substr(found)};
}

}  // namespace husk::sandbox
