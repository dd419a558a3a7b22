// A container's security context, from and to CRI messages.
#ifndef HUSK_CRI_CONVERT_SECURITY_H_
#define HUSK_CRI_CONVERT_SECURITY_H_

#include <string>

#include "agent/common/status.h"
#include "cri/proto/api.pb.h"
#include "sandbox/types.h"

namespace husk::cri {

// `field` is what errors call the message. INVALID_ARGUMENT or UNIMPLEMENTED by the field's name for what is wrong, or
// what a guest cannot give.
StatusOr<sandbox::SecurityContext> SecurityFromProto(const ::runtime::v1::LinuxContainerSecurityContext& security,
                                                     const std::string& field);
void UserToProto(const sandbox::ResolvedUser& user, ::runtime::v1::ContainerUser* out);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_SECURITY_H_
