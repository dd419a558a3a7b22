// Events: sandbox/event_hub.h's as CRI messages.
#ifndef HUSK_CRI_CONVERT_EVENT_H_
#define HUSK_CRI_CONVERT_EVENT_H_

#include "cri/proto/api.pb.h"
#include "sandbox/event_hub.h"

namespace husk::cri {

void EventToProto(const sandbox::Event& event, ::runtime::v1::ContainerEventResponse* out);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_EVENT_H_
