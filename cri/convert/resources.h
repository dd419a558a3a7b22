// Limits of pods and containers, from and to CRI messages.
#ifndef HUSK_CRI_CONVERT_RESOURCES_H_
#define HUSK_CRI_CONVERT_RESOURCES_H_

#include <string>

#include "agent/common/status.h"
#include "cri/proto/api.pb.h"
#include "sandbox/types.h"

namespace husk::cri {

// `field` is what errors call the message. INVALID_ARGUMENT by the field's name for what no kernel takes, and what
// would reach more than the container's own limits.
StatusOr<sandbox::LinuxResources> ResourcesFromProto(const ::runtime::v1::LinuxContainerResources& resources,
                                                     const std::string& field);
void ResourcesToProto(const sandbox::LinuxResources& resources, ::runtime::v1::LinuxContainerResources* out);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_RESOURCES_H_
