#include "hypervisor/qemu/disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/command_line.h"

namespace husk::hypervisor {
namespace {

constexpr std::uint32_t kScratchLun = 0;

StatusOr<std::uint64_t> SizeOf(const OpenedExtent& extent, const struct stat& status) {
  if (!extent.block_device) return static_cast<std::uint64_t>(status.st_size);
  std::uint64_t size = 0;
  if (ioctl(extent.descriptor.get(), BLKGETSIZE64, &size) != 0) return ErrnoStatus(errno, "read the device's size");
  return size;
}

StatusOr<OpenedExtent> OpenExtent(const DiskExtent& extent, bool read_only) {
  if (extent.length == 0 || extent.length % kSectorBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("its length of ", extent.length, " is no multiple of 512"));
  }
  // O_NONBLOCK: a FIFO in the place of a disk must not hold us up. It means nothing for what is accepted below.
  const int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  OpenedExtent opened{.descriptor = UniqueFd(open(extent.path.c_str(), flags)), .length = extent.length};
  if (!opened.descriptor.valid()) return ErrnoStatus(errno, "open");
  struct stat status{};
  if (fstat(opened.descriptor.get(), &status) != 0) return ErrnoStatus(errno, "fstat");
  opened.block_device = S_ISBLK(status.st_mode);
  if (!opened.block_device && !S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError("neither a regular file nor a block device");
  }
  HUSK_ASSIGN_OR_RETURN(const auto size, SizeOf(opened, status));
  if (size < extent.length) {
    return absl::InvalidArgumentError(absl::StrCat("has ", size, " bytes, fewer than its extent's ", extent.length));
  }
  return opened;
}

nlohmann::json ProtocolNode(std::int64_t fdset, bool block_device, bool read_only) {
  nlohmann::json node = {{"driver", block_device ? "host_device" : "file"},
                         {"filename", absl::StrCat("/dev/fdset/", fdset)},
                         {"read-only", read_only}};
  // Many VMs share a layer's file, which nobody writes: locks would only cost descriptors and fail on some file
  // systems.
  // Who may write to a block device together is the business of whoever gives it to the pods, as without VMs.
  if (read_only || block_device) node["locking"] = "off";
  return node;
}

}  // namespace

StatusOr<std::vector<OpenedExtent>> OpenDisk(const DiskConfig& disk) {
  if (disk.extents.empty()) return absl::InvalidArgumentError("a disk needs an extent");
  if (!disk.read_only && disk.extents.size() != 1) {
    return absl::InvalidArgumentError("a writable disk has just one extent");
  }
  std::vector<OpenedExtent> opened;
  for (const auto& extent : disk.extents) {
    HUSK_ASSIGN_OR_RETURN_DOING(auto one, OpenExtent(extent, disk.read_only), absl::StrCat("disk file ", extent.path));
    opened.push_back(std::move(one));
  }
  return opened;
}

std::string VmdkDescriptor(const std::vector<VmdkExtent>& extents) {
  std::string text =
      "# Disk DescriptorFile\n"
      "version=1\n"
      "CID=fffffffe\n"
      "parentCID=ffffffff\n"
      "createType=\"twoGbMaxExtentFlat\"\n"
      "\n"
      "# Extent description\n";
  for (const auto& extent : extents) {
    // QEMU skips extents that are not RW; the node's read-only decides how they are opened.
    absl::StrAppend(&text, "RW ", extent.length / kSectorBytes, " FLAT \"/dev/fdset/", extent.fdset, "\" 0\n");
  }
  return text;
}

StatusOr<UniqueFd> DescriptorFile(const std::string& text) {
  const UniqueFd writable(memfd_create("husk-vmdk", MFD_CLOEXEC));
  if (!writable.valid()) return ErrnoStatus(errno, "memfd_create");
  if (write(writable.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return ErrnoStatus(errno, "write the VMDK descriptor");
  }
  // QEMU takes from an fdset only a descriptor whose access mode is the wanted one.
  UniqueFd read_only(open(absl::StrCat("/proc/self/fd/", writable.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!read_only.valid()) return ErrnoStatus(errno, "reopen the VMDK descriptor");
  return read_only;
}

nlohmann::json RawBlockNode(const std::string& name, const BlockFile& file) {
  nlohmann::json protocol = ProtocolNode(file.fdset, file.block_device, file.read_only);
  if (!file.read_only) protocol["discard"] = "unmap";
  nlohmann::json node = {{"driver", "raw"},
                         {"node-name", name},
                         {"read-only", file.read_only},
                         {"size", file.length},
                         {"file", std::move(protocol)}};
  if (!file.read_only) node["discard"] = "unmap";
  return node;
}

nlohmann::json VmdkBlockNode(const std::string& name, std::int64_t descriptor_fdset) {
  return {{"driver", "vmdk"},
          {"node-name", name},
          {"read-only", true},
          {"file", ProtocolNode(descriptor_fdset, /*block_device=*/false, /*read_only=*/true)}};
}

nlohmann::json ScsiDisk(std::uint32_t lun) {
  nlohmann::json device = {{"driver", "scsi-hd"}, {"id", LunName(lun)}, {"bus", kScsiBus},      {"channel", 0},
                           {"scsi-id", 0},        {"lun", lun},         {"drive", LunName(lun)}};
  // The guest is told of errors. The scratch disk alone keeps QEMU's default, to stop the VM when a write finds no
  // space (DiskStall): a volume of the node's owner that is full is the tenant's affair.
  if (lun != kScratchLun) device.update({{"werror", "report"}, {"rerror", "report"}});
  return device;
}

StatusOr<std::uint32_t> FreeLun(const std::set<std::uint32_t>& used, const std::set<std::uint32_t>& unusable) {
  for (std::uint32_t lun = 1; lun <= kHighestLun; ++lun) {
    if (!used.contains(lun) && !unusable.contains(lun)) return lun;
  }
  return absl::ResourceExhaustedError("all 255 LUNs are in use");
}

std::optional<std::uint32_t> LunOfName(std::string_view name) {
  if (!name.starts_with("lun")) return std::nullopt;
  name.remove_prefix(3);
  std::uint32_t lun = 0;
  const auto result = std::from_chars(name.data(), name.data() + name.size(), lun);
  if (result.ec != std::errc() || result.ptr != name.data() + name.size() || lun > kHighestLun) return std::nullopt;
  return lun;
}

}  // namespace husk::hypervisor
