// CDI devices of a container: found in the host's specifications, and put into its configuration.
#ifndef HUSK_SANDBOX_CDI_INJECT_H_
#define HUSK_SANDBOX_CDI_INJECT_H_

#include <string>
#include <vector>

#include "agent/common/status.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// The configuration with what its cdi_devices bring: variables, devices, mounts, groups. The directories' *.json and
// *.yaml are read anew, up to 256 files each; a device of a later directory takes the place of one of an earlier.
// INVALID_ARGUMENT for a name that is none; FAILED_PRECONDITION, naming device and directories, for one that is
// nowhere, or twice in one directory, or whose specification does not fit the host's devices; UNIMPLEMENTED, naming
// device and field, for what a container in a virtual machine cannot have.
StatusOr<ContainerConfig> InjectCdiDevices(const std::vector<std::string>& directories, const ContainerConfig& config);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_CDI_INJECT_H_
