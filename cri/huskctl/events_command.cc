#include "cri/huskctl/events_command.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cri/huskctl/commands.h"
#include "cri/huskctl/support.h"

namespace husk::huskctl {
namespace {

std::string TypeName(api::ContainerEventType type) {
  switch (type) {
    case api::CONTAINER_CREATED_EVENT:
      return "created";
    case api::CONTAINER_STARTED_EVENT:
      return "started";
    case api::CONTAINER_STOPPED_EVENT:
      return "stopped";
    case api::CONTAINER_DELETED_EVENT:
      return "deleted";
    default:
      return "unknown";
  }
}

bool IsPod(const api::ContainerEventResponse& event) {
  return event.container_id() == event.pod_sandbox_status().id();
}

// Null for a pod, and for a container that is gone.
const api::ContainerStatus* ContainerOf(const api::ContainerEventResponse& event) {
  const auto& all = event.containers_statuses();
  const auto found = std::find_if(
      all.begin(), all.end(), [&](const api::ContainerStatus& status) { return status.id() == event.container_id(); });
  return found == all.end() ? nullptr : &*found;
}

bool ShowsExit(const api::ContainerEventResponse& event, const api::ContainerStatus* container) {
  return container != nullptr && event.container_event_type() == api::CONTAINER_STOPPED_EVENT;
}

std::string Time(std::int64_t nanoseconds) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E9SZ", absl::FromUnixNanos(nanoseconds), absl::UTCTimeZone());
}

}  // namespace

std::string EventLine(const api::ContainerEventResponse& event) {
  const api::PodSandboxMetadata& pod = event.pod_sandbox_status().metadata();
  const api::ContainerStatus* container = ContainerOf(event);
  std::string line = absl::StrCat(Time(event.created_at()), " ", TypeName(event.container_event_type()), " ",
                                  IsPod(event) ? "pod " : "container ", pod.namespace_(), "/", pod.name());
  if (container != nullptr) absl::StrAppend(&line, "/", container->metadata().name());
  absl::StrAppend(&line, " ", event.container_id());
  if (ShowsExit(event, container)) absl::StrAppend(&line, " ", container->exit_code(), " ", container->reason());
  return line;
}

std::string EventJson(const api::ContainerEventResponse& event) {
  const api::PodSandboxMetadata& pod = event.pod_sandbox_status().metadata();
  const api::ContainerStatus* container = ContainerOf(event);
  nlohmann::ordered_json json = {{"time", Time(event.created_at())},
                                 {"type", TypeName(event.container_event_type())},
                                 {"kind", IsPod(event) ? "pod" : "container"},
                                 {"id", event.container_id()},
                                 {"pod", event.pod_sandbox_status().id()},
                                 {"namespace", pod.namespace_()},
                                 {"podName", pod.name()},
                                 {"podUid", pod.uid()}};
  if (container != nullptr) json["name"] = container->metadata().name();
  if (ShowsExit(event, container)) {
    json["exitCode"] = container->exit_code();
    json["reason"] = container->reason();
  }
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

StatusOr<int> Events(Client& client, bool json) {
  const Status ended = client.Events([&](const api::ContainerEventResponse& event) {
    const std::string line = json ? EventJson(event) : EventLine(event);
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);  // into a pipe too, as it happens
  });
  return ended.ok() ? absl::UnavailableError("huskd ended the events") : ended;
}

}  // namespace husk::huskctl
