// Containers: CRI messages and sandbox/types.h.
#ifndef HUSK_CRI_CONVERT_CONTAINER_H_
#define HUSK_CRI_CONVERT_CONTAINER_H_

#include <string>

#include "agent/common/status.h"
#include "cri/proto/api.pb.h"
#include "sandbox/types.h"

namespace husk::cri {

// INVALID_ARGUMENT or UNIMPLEMENTED, naming the field, for what is missing, wrong, or must not be ignored.
StatusOr<sandbox::ContainerConfig> ContainerConfigFromProto(const ::runtime::v1::ContainerConfig& config);
sandbox::ContainerFilter ContainerFilterFromProto(const ::runtime::v1::ContainerFilter& filter);

void ContainerStatusToProto(const sandbox::ContainerStatus& container, ::runtime::v1::ContainerStatus* out);
void ContainerToProto(const sandbox::ContainerStatus& container, ::runtime::v1::Container* out);

// "SIGRTMIN+3" for SIGRTMINPLUS3, empty for RUNTIME_DEFAULT; and back, RUNTIME_DEFAULT for a name that the CRI does not
// have.
std::string SignalName(::runtime::v1::Signal signal);
::runtime::v1::Signal SignalFromName(const std::string& name);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_CONTAINER_H_
