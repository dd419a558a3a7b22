// How `huskctl events` shows an event.
#ifndef HUSK_CRI_HUSKCTL_EVENTS_COMMAND_H_
#define HUSK_CRI_HUSKCTL_EVENTS_COMMAND_H_

#include <string>

#include "cri/proto/api.pb.h"

namespace husk::huskctl {

// One line without its end: "TIME started container NAMESPACE/POD/NAME ID", the time in UTC; with the exit code and the
// reason of a container that stopped. A deleted container has no name any more.
std::string EventLine(const ::runtime::v1::ContainerEventResponse& event);
// The same facts as one JSON object on one line.
std::string EventJson(const ::runtime::v1::ContainerEventResponse& event);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_EVENTS_COMMAND_H_
