// The check that a pod's id passes before it becomes part of a path or of a plugin's environment.
#ifndef HUSK_SANDBOX_HOST_POD_ID_H_
#define HUSK_SANDBOX_HOST_POD_ID_H_

#include "absl/strings/string_view.h"
#include "agent/common/status.h"

namespace husk::sandbox {

// OK for 1 to 64 characters of [a-z0-9-] that do not begin with a hyphen, else INVALID_ARGUMENT.
Status CheckPodId(absl::string_view pod_id);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_HOST_POD_ID_H_
