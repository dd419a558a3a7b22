// How a streamed command ended: what the server says on the status channel.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_COMMAND_STATUS_H_
#define HUSK_CRI_HUSKCTL_STREAMS_COMMAND_STATUS_H_

#include <string>

#include "agent/common/status.h"

namespace husk::huskctl {

// The exit code that a Kubernetes Status object in JSON tells, 0 to 255; if it tells of another failure, that with its
// message. INTERNAL for what is no such object.
StatusOr<int> ParseCommandStatus(const std::string& json);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_COMMAND_STATUS_H_
