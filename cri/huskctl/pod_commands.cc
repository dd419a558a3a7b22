#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "cri/huskctl/commands.h"
#include "cri/huskctl/support.h"

namespace husk::huskctl {

namespace {

nlohmann::json Strings(const google::protobuf::Map<std::string, std::string>& map) {
  nlohmann::json object = nlohmann::json::object();
  for (const auto& [key, value] : map) object[key] = value;
  return object;
}

struct PodView {
  api::PodSandbox pod;
  std::vector<std::string> addresses;
  std::vector<api::ContainerStatus> containers;
};

StatusOr<std::vector<PodView>> ViewPods(Client& client, bool all) {
  HUSK_ASSIGN_OR_RETURN(const api::ListPodSandboxResponse pods, client.Call(api::ListPodSandboxRequest()));
  HUSK_ASSIGN_OR_RETURN(const api::ListContainersResponse containers, client.Call(api::ListContainersRequest()));
  std::vector<PodView> views;
  for (const api::PodSandbox& pod : pods.items()) {
    if (!all && pod.state() != api::SANDBOX_READY) continue;
    api::PodSandboxStatusRequest request;
    request.set_pod_sandbox_id(pod.id());
    const StatusOr<api::PodSandboxStatusResponse> status = client.Call(request);
    if (absl::IsNotFound(status.status())) continue;  // removed meanwhile
    if (!status.ok()) return status.status();
    PodView& view = views.emplace_back();
    view.pod = pod;
    const api::PodSandboxNetworkStatus& network = status->status().network();
    if (!network.ip().empty()) view.addresses.push_back(network.ip());
    for (const api::PodIP& ip : network.additional_ips()) view.addresses.push_back(ip.ip());
    for (const api::Container& container : containers.containers()) {
      if (container.pod_sandbox_id() != pod.id()) continue;
      api::ContainerStatusRequest container_request;
      container_request.set_container_id(container.id());
      const StatusOr<api::ContainerStatusResponse> container_status = client.Call(container_request);
      if (absl::IsNotFound(container_status.status())) continue;
      if (!container_status.ok()) return container_status.status();
      view.containers.push_back(container_status->status());
    }
  }
  return views;
}

nlohmann::json ToJson(const PodView& view) {
  nlohmann::json containers = nlohmann::json::array();
  for (const api::ContainerStatus& container : view.containers) {
    containers.push_back({{"id", container.id()},
                          {"name", container.metadata().name()},
                          {"attempt", container.metadata().attempt()},
                          {"image", container.image().image()},
                          {"imageId", container.image_id()},
                          {"imageReference", container.image_ref()},
                          {"state", StateName(container.state())},
                          {"createdAt", container.created_at()},
                          {"startedAt", container.started_at()},
                          {"finishedAt", container.finished_at()},
                          {"exitCode", container.exit_code()},
                          {"reason", container.reason()},
                          {"message", container.message()},
                          {"logPath", container.log_path()},
                          {"labels", Strings(container.labels())},
                          {"annotations", Strings(container.annotations())}});
  }
  return {{"id", view.pod.id()},
          {"name", view.pod.metadata().name()},
          {"namespace", view.pod.metadata().namespace_()},
          {"uid", view.pod.metadata().uid()},
          {"attempt", view.pod.metadata().attempt()},
          {"state", StateName(view.pod.state())},
          {"createdAt", view.pod.created_at()},
          {"addresses", view.addresses},
          {"labels", Strings(view.pod.labels())},
          {"annotations", Strings(view.pod.annotations())},
          {"containers", containers}};
}

}  // namespace

StatusOr<int> ListPods(Client& client, const ListOptions& options) {
  HUSK_ASSIGN_OR_RETURN(const std::vector<PodView> views, ViewPods(client, options.all));
  if (options.json) {
    nlohmann::json pods = nlohmann::json::array();
    for (const PodView& view : views) pods.push_back(ToJson(view));
    std::printf("%s\n", pods.dump(2).c_str());
    return 0;
  }
  if (options.quiet) {
    for (const PodView& view : views) {
      if (!options.containers) std::printf("%s\n", view.pod.id().c_str());
      for (const api::ContainerStatus& container : view.containers) {
        if (options.containers) std::printf("%s\n", container.id().c_str());
      }
    }
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {
      {"POD ID", "POD", "STATE", "ADDRESS", "AGE", "CONTAINER ID", "CONTAINER", "STATE", "IMAGE"}};
  for (const PodView& view : views) {
    const std::vector<std::string> pod = {
        ShortId(view.pod.id()), absl::StrCat(view.pod.metadata().namespace_(), "/", view.pod.metadata().name()),
        StateName(view.pod.state()), view.addresses.empty() ? "-" : view.addresses.front(), Age(view.pod.created_at())};
    if (view.containers.empty()) rows.push_back(pod);
    for (const api::ContainerStatus& container : view.containers) {
      std::vector<std::string> row = pod;
      std::string state = StateName(container.state());
      if (container.state() == api::CONTAINER_EXITED) absl::StrAppend(&state, " (", container.exit_code(), ")");
      row.insert(row.end(), {ShortId(container.id()), container.metadata().name(), state, container.image().image()});
      rows.push_back(row);
    }
  }
  std::fputs(Table(rows).c_str(), stdout);
  return 0;
}

StatusOr<int> StopPodOrContainer(Client& client, const std::string& name, std::chrono::seconds grace) {
  const StatusOr<api::PodSandbox> pod = FindPod(client, name);
  if (pod.ok()) {
    api::StopPodSandboxRequest request;
    request.set_pod_sandbox_id(pod->id());
    HUSK_RETURN_IF_ERROR(client.Call(request).status());
    std::printf("stopped pod %s\n", ShortId(pod->id()).c_str());
    return 0;
  }
  if (!absl::IsNotFound(pod.status())) return pod.status();
  const StatusOr<api::Container> container = FindContainer(client, name);
  if (absl::IsNotFound(container.status())) {
    return absl::NotFoundError(absl::StrCat(pod.status().message(), "; ", container.status().message()));
  }
  if (!container.ok()) return container.status();
  api::StopContainerRequest request;
  request.set_container_id(container->id());
  request.set_timeout(grace.count());
  HUSK_RETURN_IF_ERROR(client.Call(request).status());
  std::printf("stopped container %s\n", ShortId(container->id()).c_str());
  return 0;
}

StatusOr<int> RemovePods(Client& client, const std::vector<std::string>& names, bool force) {
  std::vector<api::PodSandbox> pods;
  if (names.size() == 1 && names.front() == "all") {
    HUSK_ASSIGN_OR_RETURN(const api::ListPodSandboxResponse all, client.Call(api::ListPodSandboxRequest()));
    pods.assign(all.items().begin(), all.items().end());
  } else {
    for (const std::string& name : names) {
      StatusOr<api::PodSandbox> pod = FindPod(client, name);
      if (force && absl::IsNotFound(pod.status())) continue;
      if (!pod.ok()) return pod.status();
      pods.push_back(*std::move(pod));
    }
  }
  Status first_failure = absl::OkStatus();
  for (const api::PodSandbox& pod : pods) {
    const Status removed = RemovePod(client, pod.id());
    if (!removed.ok() && !force) return removed;
    first_failure.Update(removed);
    if (removed.ok()) {
      std::printf("removed pod %s (%s)\n", pod.metadata().name().c_str(), ShortId(pod.id()).c_str());
    }
  }
  if (!first_failure.ok()) return first_failure;
  return 0;
}

StatusOr<int> Info(Client& client, bool json) {
  api::StatusRequest request;
  request.set_verbose(true);
  HUSK_ASSIGN_OR_RETURN(const api::StatusResponse status, client.Call(request));
  nlohmann::json result = nlohmann::json::object();
  for (const api::RuntimeCondition& condition : status.status().conditions()) {
    result["conditions"][condition.type()] = {{"status", condition.status()}, {"message", condition.message()}};
  }
  for (const auto& [key, value] : status.info()) {
    nlohmann::json parsed = nlohmann::json::parse(value, nullptr, false);
    result[key] = parsed.is_discarded() ? nlohmann::json(value) : parsed;
  }
  if (json) {
    std::printf("%s\n", result.dump(2).c_str());
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [type, condition] : result["conditions"].items()) {
    const std::string message = condition.value("message", "");
    rows.push_back({type, condition.value("status", false) ? "yes" : "no: " + message});
  }
  for (const auto& [key, value] : result["husk"].items()) {
    rows.push_back({key, value.is_string() ? value.get<std::string>() : value.dump()});
  }
  for (const auto& [lane, counters] : result["lanes"].items()) {
    rows.push_back(
        {"lane " + lane,
         absl::StrCat(counters.value("running", 0), " running, ", counters.value("queued", 0), " queued, ",
                      counters.value("finished", 0), " finished, ", counters.value("refused", 0), " refused")});
  }
  std::fputs(Table(rows).c_str(), stdout);
  return 0;
}

StatusOr<int> Version(Client& client) {
  std::printf("huskctl %s\n", HUSK_VERSION);
  HUSK_ASSIGN_OR_RETURN(const api::VersionResponse version, client.Call(api::VersionRequest()));
  std::printf("%s %s, CRI %s\n", version.runtime_name().c_str(), version.runtime_version().c_str(),
              version.runtime_api_version().c_str());
  return 0;
}

}  // namespace husk::huskctl
