#include "agent/guest/scsi_disk.h"

#include <chrono>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/guest/files.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

// SCSI's flat addressing, which is how LUNs above 255 are said.
constexpr std::uint64_t kFlatAddressing = 0x4000;

void ScanHosts(const std::string& sysfs) {
  static std::chrono::steady_clock::time_point last_scan;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_scan < std::chrono::seconds(1)) return;
  last_scan = now;
  std::error_code ignored;
  for (const auto& host : std::filesystem::directory_iterator(sysfs + "/class/scsi_host", ignored)) {
    // Not to be found is the caller's trouble, whatever happens to the scan.
    WriteFile(host.path().string() + "/scan", "- - -").IgnoreError();
  }
}

}  // namespace

StatusOr<std::string> FindScsiDisk(std::uint32_t lun, const std::string& sysfs) {
  std::error_code error;
  for (const auto& device : std::filesystem::directory_iterator(sysfs + "/class/scsi_device", error)) {
    // host:channel:target:lun
    const std::string name = device.path().filename().string();
    const std::vector<std::string_view> address = Split(name, ':');
    std::uint64_t number = 0;
    if (address.size() != 4 || address[2] != "0" || !ParseNumber(address[3], number)) continue;
    if (number != lun && number != (kFlatAddressing | lun)) continue;
    for (const auto& block : std::filesystem::directory_iterator(device.path() / "device/block", error)) {
      return absl::StrCat("/dev/", block.path().filename().string());
    }
  }
  ScanHosts(sysfs);
  return absl::NotFoundError(absl::StrCat("there is no disk with lun=", lun));
}

}  // namespace husk::agent
