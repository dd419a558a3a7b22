#include "cri/convert/event.h"

#include "cri/convert/container.h"
#include "cri/convert/pod.h"

namespace husk::cri {

namespace api = ::runtime::v1;

namespace {

api::ContainerEventType ToProto(sandbox::EventType type) {
  switch (type) {
    case sandbox::EventType::kCreated:
      return api::CONTAINER_CREATED_EVENT;
    case sandbox::EventType::kStarted:
      return api::CONTAINER_STARTED_EVENT;
    case sandbox::EventType::kStopped:
      return api::CONTAINER_STOPPED_EVENT;
    case sandbox::EventType::kDeleted:
      return api::CONTAINER_DELETED_EVENT;
  }
  return api::CONTAINER_CREATED_EVENT;
}

}  // namespace

void EventToProto(const sandbox::Event& event, api::ContainerEventResponse* out) {
  out->set_container_id(event.id);
  out->set_container_event_type(ToProto(event.type));
  out->set_created_at(event.created_at);
  PodStatusToProto(event.pod, out->mutable_pod_sandbox_status());
  for (const sandbox::ContainerStatus& container : event.containers) {
    ContainerStatusToProto(container, out->add_containers_statuses());
  }
}

}  // namespace husk::cri
