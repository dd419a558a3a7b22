// A pod's own settings of its VM, from its annotations. docs/adr/0127.
#ifndef HUSK_CRI_CONVERT_ANNOTATIONS_H_
#define HUSK_CRI_CONVERT_ANNOTATIONS_H_

#include "agent/common/status.h"
#include "cri/config/config.h"
#include "sandbox/types.h"

namespace husk::cri {

// `node`, and errors: as ConfigForPod's.
StatusOr<sandbox::VmChoices> VmChoicesFromAnnotations(const sandbox::StringMap& annotations, const Config& node);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_ANNOTATIONS_H_
