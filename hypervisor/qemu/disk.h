// Disks as QEMU's block layer is told of them: descriptors in fdsets, VMDK descriptors that concatenate extents, nodes.
#ifndef HUSK_HYPERVISOR_QEMU_DISK_H_
#define HUSK_HYPERVISOR_QEMU_DISK_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "hypervisor/hypervisor.h"

namespace husk::hypervisor {

inline constexpr std::uint64_t kSectorBytes = 512;
// What virtio-scsi can address with one byte.
inline constexpr std::uint32_t kHighestLun = 255;

struct OpenedExtent {
  UniqueFd descriptor;
  std::uint64_t length = 0;
  bool block_device = false;
};

// Opens the disk's files after checking that they can be what the config says: regular files or block devices, at least
// as long as their extents.
StatusOr<std::vector<OpenedExtent>> OpenDisk(const DiskConfig& disk);

// A file that QEMU reaches through an fdset.
struct BlockFile {
  std::int64_t fdset = 0;
  std::uint64_t length = 0;
  bool block_device = false;
  bool read_only = true;
};

struct VmdkExtent {
  std::int64_t fdset = 0;
  std::uint64_t length = 0;
};

// The text of a VMDK descriptor whose extents follow each other.
std::string VmdkDescriptor(const std::vector<VmdkExtent>& extents);
// A memfd with this text, opened for reading only.
StatusOr<UniqueFd> DescriptorFile(const std::string& text);

// Arguments of blockdev-add. The length cuts a longer file.
nlohmann::json RawBlockNode(const std::string& name, const BlockFile& file);
nlohmann::json VmdkBlockNode(const std::string& name, std::int64_t descriptor_fdset);
// Arguments of device_add: a disk on the one controller whose block node is LunName(lun).
nlohmann::json ScsiDisk(std::uint32_t lun);

// The lowest LUN above 0 that is in neither set.
StatusOr<std::uint32_t> FreeLun(const std::set<std::uint32_t>& used, const std::set<std::uint32_t>& unusable);
// 3 for "lun3"; nothing for other names.
std::optional<std::uint32_t> LunOfName(std::string_view name);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_DISK_H_
