// One specification file of the Container Device Interface (cncf-tags/container-device-interface), JSON or YAML.
#ifndef HUSK_SANDBOX_CDI_SPEC_H_
#define HUSK_SANDBOX_CDI_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/common/status.h"
#include "sandbox/types.h"

namespace husk::sandbox {

struct CdiDeviceNode {
  ContainerDevice device;
  std::string type;  // "b", "c" or "u", or empty: as the host has it
  std::optional<std::uint32_t> major;
  std::optional<std::uint32_t> minor;
};

// containerEdits: what a device changes about its container.
struct CdiEdits {
  std::vector<std::pair<std::string, std::string>> environment;
  std::vector<CdiDeviceNode> devices;
  std::vector<ContainerMount> mounts;  // of_device
  std::vector<std::uint32_t> additional_gids;
  // What a container in a virtual machine cannot have: "hooks: ...". Of use to a device that is asked for alone.
  std::vector<std::string> refusals;
};

struct CdiSpec {
  std::string kind;  // "vendor.com/class"
  CdiEdits edits;    // of every device of the file
  std::map<std::string, CdiEdits> devices;
};

// INVALID_ARGUMENT, naming the field, for what the CDI's schema does not know or does not allow. Never more memory or
// depth than a file of kLongestCdiSpec bytes can ask for without aliases.
StatusOr<CdiSpec> ParseCdiSpec(std::string_view text);
inline constexpr std::size_t kLongestCdiSpec = std::size_t{1} << 20;

// "vendor.com/class=device".
struct CdiName {
  std::string kind;
  std::string device;
};
StatusOr<CdiName> ParseCdiName(const std::string& name);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_CDI_SPEC_H_
