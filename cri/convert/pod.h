// Pods: CRI messages and sandbox/types.h.
#ifndef HUSK_CRI_CONVERT_POD_H_
#define HUSK_CRI_CONVERT_POD_H_

#include <string>

#include "agent/common/status.h"
#include "cri/proto/api.pb.h"
#include "sandbox/types.h"

namespace husk::cri {

// INVALID_ARGUMENT or UNIMPLEMENTED, naming the field, for what is missing, wrong, or must not be ignored.
StatusOr<sandbox::PodConfig> PodConfigFromProto(const ::runtime::v1::PodSandboxConfig& config,
                                                const std::string& runtime_handler);
sandbox::PodFilter PodFilterFromProto(const ::runtime::v1::PodSandboxFilter& filter);

void PodStatusToProto(const sandbox::PodStatus& pod, ::runtime::v1::PodSandboxStatus* out);
void PodToProto(const sandbox::PodStatus& pod, ::runtime::v1::PodSandbox* out);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_POD_H_
