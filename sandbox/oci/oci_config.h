// The OCI runtime configuration that a container's CRI configuration and its image together mean.
#ifndef HUSK_SANDBOX_OCI_OCI_CONFIG_H_
#define HUSK_SANDBOX_OCI_OCI_CONFIG_H_

#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "images/image_service.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// config.json for crun in the guest, as bytes. Complete but for what only the guest knows: see ContainerSpec in
// agent.proto.
// Command and arguments follow Kubernetes' rules (command replaces the entrypoint and drops the image's command;
// arguments replace the image's command). Environment: the image's, then the config's, PATH if neither has one, HOME
// left to the agent. No network or UTS namespace: the pod's are the VM's, and so is IPC unless the container has its
// own. No PID namespace for one that joins another (POD, TARGET). Errors: INVALID_ARGUMENT that names the field, such
// as an image without entrypoint and a config without command, or a value that is not UTF-8, which crun's JSON cannot
// carry. Its mounts go beside it, in ContainerSpec. Nothing else of labels, annotations, or what the image says about
// itself is in it: crun takes orders from annotations. `localhost_profile`: the bytes of the file that a Localhost
// seccomp profile names (ReadSeccompProfile).
StatusOr<std::string> MakeOciConfig(const PodConfig& pod, const std::string& container_id,
                                    const ContainerConfig& container, const images::ImageRunConfig& image,
                                    std::string_view localhost_profile = {});

// linux.resources alone, without devices: what a change of a container's limits sends to the guest.
std::string MakeOciResources(const LinuxResources& resources);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_OCI_OCI_CONFIG_H_
