#include "cri/service/handlers.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cri/convert/annotations.h"
#include "cri/convert/common.h"
#include "cri/convert/container.h"
#include "cri/convert/image.h"
#include "cri/convert/pod.h"
#include "cri/convert/resources.h"
#include "cri/service/grpc_status.h"

namespace husk::cri {

namespace api = ::runtime::v1;

namespace {

constexpr char kRuntimeHandler[] = "husk";

std::int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Runtime takes unique prefixes as ids, and an empty one fits everything.
Status CheckId(const char* field, const std::string& id) {
  if (!id.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": missing"));
}

Status CheckRuntimeHandler(const std::string& name) {
  if (name.empty() || name == kRuntimeHandler) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("runtime_handler: \"", name, "\" is unknown; this node has \"\" and \"", kRuntimeHandler, "\""));
}

// Images are the same for each of the handlers.
Status CheckImage(const api::ImageSpec& image) {
  HUSK_RETURN_IF_ERROR(CheckId("image.image", image.image()));
  return Annotate(CheckRuntimeHandler(image.runtime_handler()), "image");
}

void SetCondition(const char* type, const Status& status, const char* reason, api::RuntimeStatus* out) {
  api::RuntimeCondition* condition = out->add_conditions();
  condition->set_type(type);
  condition->set_status(status.ok());
  if (status.ok()) return;
  condition->set_reason(reason);
  condition->set_message(std::string(status.message()));
}

std::string LanesJson(const Lanes& lanes) {
  nlohmann::json result = nlohmann::json::object();
  for (const LaneClass lane_class : kLaneClasses) {
    const LaneCounters counters = lanes.counters(lane_class);
    result[std::string(LaneName(lane_class))] = {{"queued", counters.queued},
                                                 {"running", counters.running},
                                                 {"accepted", counters.accepted},
                                                 {"refused", counters.refused},
                                                 {"finished", counters.finished},
                                                 {"waitedNanoseconds", counters.waited.count()},
                                                 {"runNanoseconds", counters.run.count()}};
  }
  return result.dump();
}

std::string ImageInfoJson(const images::ImageRunConfig& run) {
  const nlohmann::json info = {{"user", run.user},
                               {"environment", run.environment},
                               {"entrypoint", run.entrypoint},
                               {"command", run.command},
                               {"workingDirectory", run.working_directory},
                               {"stopSignal", run.stop_signal},
                               {"volumes", run.volumes},
                               {"labels", run.labels}};
  return info.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Seconds of the CRI as a duration; negative or absurdly large ones are capped, so that sums do not overflow.
std::chrono::nanoseconds Seconds(std::int64_t seconds) {
  constexpr std::int64_t kMost = 10L * 365 * 24 * 3600;
  return std::chrono::seconds(std::clamp<std::int64_t>(seconds, 0, kMost));
}

}  // namespace

Status Handlers::Version(const Context& /*context*/, const api::VersionRequest& /*request*/,
                         api::VersionResponse* response) {
  response->set_version("0.1.0");  // the kubelet's own API version, the same since 2016
  response->set_runtime_name("husk");
  response->set_runtime_version(HUSK_VERSION);
  response->set_runtime_api_version("v1");
  return absl::OkStatus();
}

Status Handlers::RuntimeStatus(const Context& /*context*/, const api::StatusRequest& request,
                               api::StatusResponse* response) {
  SetCondition("RuntimeReady", parts_.runtime_ready(), "RuntimeNotReady", response->mutable_status());
  SetCondition("NetworkReady", parts_.network->Ready(), "NetworkNotReady", response->mutable_status());
  for (const char* name : {"", kRuntimeHandler}) {
    api::RuntimeHandler* handler = response->add_runtime_handlers();
    handler->set_name(name);
    handler->mutable_features()->set_recursive_read_only_mounts(true);
  }
  // User namespaces are not: a pod that asks for one is refused.
  response->mutable_features()->set_supplemental_groups_policy(true);
  if (request.verbose()) {
    for (auto& [key, value] : parts_.information()) (*response->mutable_info())[key] = value;
    (*response->mutable_info())["lanes"] = LanesJson(*parts_.lanes);
    (*response->mutable_info())["pulls"] = pulls_.ToJson();
  }
  return absl::OkStatus();
}

Status Handlers::RuntimeConfig(const Context& /*context*/, const api::RuntimeConfigRequest& /*request*/,
                               api::RuntimeConfigResponse* response) {
  response->mutable_linux()->set_cgroup_driver(parts_.cgroup_driver == CgroupDriver::kSystemd ? api::SYSTEMD
                                                                                              : api::CGROUPFS);
  return absl::OkStatus();
}

Status Handlers::UpdateRuntimeConfig(const Context& /*context*/, const api::UpdateRuntimeConfigRequest& request,
                                     api::UpdateRuntimeConfigResponse* /*response*/) {
  // The pod CIDR belongs to the CNI configuration here; accepted because the kubelet treats a refusal as a failure.
  spdlog::info("the kubelet's pod CIDR is \"{}\"", request.runtime_config().network_config().pod_cidr());
  return absl::OkStatus();
}

Status Handlers::RunPodSandbox(const Context& context, const api::RunPodSandboxRequest& request,
                               api::RunPodSandboxResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckRuntimeHandler(request.runtime_handler()));
  HUSK_ASSIGN_OR_RETURN(sandbox::PodConfig config, PodConfigFromProto(request.config(), request.runtime_handler()));
  HUSK_ASSIGN_OR_RETURN(config.vm_choices, VmChoicesFromAnnotations(config.annotations, parts_.config));
  spdlog::info("run pod request={} namespace={} name={} uid={} attempt={}", context.request_id(),
               config.metadata.kubernetes_namespace, config.metadata.name, config.metadata.uid,
               config.metadata.attempt);
  HUSK_ASSIGN_OR_RETURN(*response->mutable_pod_sandbox_id(), parts_.runtime->RunPod(context, config));
  spdlog::info("pod is ready request={} pod={}", context.request_id(), response->pod_sandbox_id());
  return absl::OkStatus();
}

Status Handlers::StopPodSandbox(const Context& context, const api::StopPodSandboxRequest& request,
                                api::StopPodSandboxResponse* /*response*/) {
  HUSK_RETURN_IF_ERROR(CheckId("pod_sandbox_id", request.pod_sandbox_id()));
  HUSK_RETURN_IF_ERROR(parts_.runtime->StopPod(context, request.pod_sandbox_id()));
  spdlog::info("stopped pod={}", request.pod_sandbox_id());
  return absl::OkStatus();
}

Status Handlers::RemovePodSandbox(const Context& context, const api::RemovePodSandboxRequest& request,
                                  api::RemovePodSandboxResponse* /*response*/) {
  HUSK_RETURN_IF_ERROR(CheckId("pod_sandbox_id", request.pod_sandbox_id()));
  HUSK_RETURN_IF_ERROR(parts_.runtime->RemovePod(context, request.pod_sandbox_id()));
  spdlog::info("removed pod={}", request.pod_sandbox_id());
  return absl::OkStatus();
}

Status Handlers::PodSandboxStatus(const Context& /*context*/, const api::PodSandboxStatusRequest& request,
                                  api::PodSandboxStatusResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckId("pod_sandbox_id", request.pod_sandbox_id()));
  HUSK_ASSIGN_OR_RETURN(const sandbox::PodStatus pod,
                        parts_.runtime->GetPod(request.pod_sandbox_id(), request.verbose()));
  PodStatusToProto(pod, response->mutable_status());
  if (request.verbose()) {
    for (const auto& [key, value] : pod.information) (*response->mutable_info())[key] = value;
  }
  return absl::OkStatus();
}

Status Handlers::ListPodSandbox(const Context& /*context*/, const api::ListPodSandboxRequest& request,
                                api::ListPodSandboxResponse* response) {
  for (const sandbox::PodStatus& pod : parts_.runtime->ListPods(PodFilterFromProto(request.filter()))) {
    PodToProto(pod, response->add_items());
  }
  return absl::OkStatus();
}

Status Handlers::CreateContainer(const Context& context, const api::CreateContainerRequest& request,
                                 api::CreateContainerResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckId("pod_sandbox_id", request.pod_sandbox_id()));
  HUSK_ASSIGN_OR_RETURN(const sandbox::ContainerConfig config, ContainerConfigFromProto(request.config()));
  HUSK_ASSIGN_OR_RETURN(*response->mutable_container_id(),
                        parts_.runtime->CreateContainer(context, request.pod_sandbox_id(), config));
  spdlog::info("created container={} name={} pod={} request={}", response->container_id(), config.metadata.name,
               request.pod_sandbox_id(), context.request_id());
  return absl::OkStatus();
}

Status Handlers::StartContainer(const Context& context, const api::StartContainerRequest& request,
                                api::StartContainerResponse* /*response*/) {
  HUSK_RETURN_IF_ERROR(CheckId("container_id", request.container_id()));
  HUSK_RETURN_IF_ERROR(parts_.runtime->StartContainer(context, request.container_id()));
  spdlog::info("started container={}", request.container_id());
  return absl::OkStatus();
}

Status Handlers::StopContainer(const Context& context, const api::StopContainerRequest& request,
                               api::StopContainerResponse* /*response*/) {
  HUSK_RETURN_IF_ERROR(CheckId("container_id", request.container_id()));
  HUSK_RETURN_IF_ERROR(parts_.runtime->StopContainer(context, request.container_id(), Seconds(request.timeout())));
  spdlog::info("stopped container={}", request.container_id());
  return absl::OkStatus();
}

Status Handlers::RemoveContainer(const Context& context, const api::RemoveContainerRequest& request,
                                 api::RemoveContainerResponse* /*response*/) {
  HUSK_RETURN_IF_ERROR(CheckId("container_id", request.container_id()));
  HUSK_RETURN_IF_ERROR(parts_.runtime->RemoveContainer(context, request.container_id()));
  spdlog::info("removed container={}", request.container_id());
  return absl::OkStatus();
}

Status Handlers::UpdateContainerResources(const Context& context, const api::UpdateContainerResourcesRequest& request,
                                          api::UpdateContainerResourcesResponse* /*response*/) {
  HUSK_RETURN_IF_ERROR(CheckId("container_id", request.container_id()));
  if (request.has_windows()) return UnsupportedField("windows");
  HUSK_ASSIGN_OR_RETURN(const sandbox::LinuxResources change, ResourcesFromProto(request.linux(), "linux"));
  return parts_.runtime->UpdateContainerResources(context, request.container_id(), change);
}

Status Handlers::UpdatePodSandboxResources(const Context& context, const api::UpdatePodSandboxResourcesRequest& request,
                                           api::UpdatePodSandboxResourcesResponse* /*response*/) {
  HUSK_RETURN_IF_ERROR(CheckId("pod_sandbox_id", request.pod_sandbox_id()));
  HUSK_ASSIGN_OR_RETURN(const sandbox::LinuxResources overhead, ResourcesFromProto(request.overhead(), "overhead"));
  HUSK_ASSIGN_OR_RETURN(const sandbox::LinuxResources resources, ResourcesFromProto(request.resources(), "resources"));
  return parts_.runtime->UpdatePodResources(context, request.pod_sandbox_id(), resources, overhead);
}

Status Handlers::ContainerStatus(const Context& /*context*/, const api::ContainerStatusRequest& request,
                                 api::ContainerStatusResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckId("container_id", request.container_id()));
  HUSK_ASSIGN_OR_RETURN(const sandbox::ContainerStatus container,
                        parts_.runtime->GetContainer(request.container_id(), request.verbose()));
  ContainerStatusToProto(container, response->mutable_status());
  if (request.verbose()) {
    for (const auto& [key, value] : container.information) (*response->mutable_info())[key] = value;
  }
  return absl::OkStatus();
}

Status Handlers::ListContainers(const Context& /*context*/, const api::ListContainersRequest& request,
                                api::ListContainersResponse* response) {
  for (const auto& container : parts_.runtime->ListContainers(ContainerFilterFromProto(request.filter()))) {
    ContainerToProto(container, response->add_containers());
  }
  return absl::OkStatus();
}

Status Handlers::ExecSync(const Context& context, const api::ExecSyncRequest& request,
                          api::ExecSyncResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckId("container_id", request.container_id()));
  if (request.cmd().empty()) return absl::InvalidArgumentError("cmd: missing");
  HUSK_ASSIGN_OR_RETURN(
      sandbox::ExecResult result,
      parts_.runtime->ExecSync(context, request.container_id(), {request.cmd().begin(), request.cmd().end()},
                               Seconds(request.timeout())));
  response->set_stdout(std::move(result.standard_output));
  response->set_stderr(std::move(result.standard_error));
  response->set_exit_code(result.exit_code);
  return absl::OkStatus();
}

Status Handlers::ReopenContainerLog(const Context& context, const api::ReopenContainerLogRequest& request,
                                    api::ReopenContainerLogResponse* /*response*/) {
  HUSK_RETURN_IF_ERROR(CheckId("container_id", request.container_id()));
  return parts_.runtime->ReopenContainerLog(context, request.container_id());
}

Status Handlers::ListImages(const Context& /*context*/, const api::ListImagesRequest& request,
                            api::ListImagesResponse* response) {
  const std::string& wanted = request.filter().image().image();
  if (!wanted.empty()) {
    HUSK_ASSIGN_OR_RETURN(const std::optional<images::Image> image, parts_.images->Find(wanted));
    if (image) ImageToProto(*image, response->add_images());
    return absl::OkStatus();
  }
  HUSK_ASSIGN_OR_RETURN(const std::vector<images::Image> all, parts_.images->List());
  for (const images::Image& image : all) ImageToProto(image, response->add_images());
  return absl::OkStatus();
}

Status Handlers::ImageStatus(const Context& /*context*/, const api::ImageStatusRequest& request,
                             api::ImageStatusResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckImage(request.image()));
  HUSK_ASSIGN_OR_RETURN(const std::optional<images::Image> image, parts_.images->Find(request.image().image()));
  if (!image) return absl::OkStatus();
  ImageToProto(*image, response->mutable_image());
  if (request.verbose()) (*response->mutable_info())["config"] = ImageInfoJson(image->run);
  return absl::OkStatus();
}

Status Handlers::PullImage(const Context& context, const api::PullImageRequest& request,
                           api::PullImageResponse* response) {
  const std::string& reference = request.image().image();
  HUSK_RETURN_IF_ERROR(CheckImage(request.image()));
  spdlog::info("pull image={} request={}", reference, context.request_id());
  PullTracker::Pull pull(&pulls_, reference);
  const StatusOr<images::Image> image =
      parts_.images->Pull(context, reference, CredentialsFromProto(request.auth()),
                          [&pull](const images::PullProgress& progress) { pull.Update(progress); });
  parts_.lanes->observer().OnPull(image.ok(), pull.bytes_done(), pull.elapsed());
  if (!image.ok()) return PullError(image.status());
  const double seconds = std::chrono::duration<double>(pull.elapsed()).count();
  spdlog::info("pulled image={} id={} fetched={} seconds={:.1f}", reference, image->id,
               ReadableBytes(pull.bytes_done()), seconds);
  response->set_image_ref(image->id);
  return absl::OkStatus();
}

Status Handlers::RemoveImage(const Context& context, const api::RemoveImageRequest& request,
                             api::RemoveImageResponse* /*response*/) {
  HUSK_RETURN_IF_ERROR(CheckImage(request.image()));
  HUSK_RETURN_IF_ERROR(parts_.images->Remove(context, request.image().image()));
  spdlog::info("removed image={}", request.image().image());
  return absl::OkStatus();
}

Status Handlers::ImageFsInfo(const Context& /*context*/, const api::ImageFsInfoRequest& /*request*/,
                             api::ImageFsInfoResponse* response) {
  HUSK_ASSIGN_OR_RETURN(const images::FileSystemUsage usage, parts_.images->Usage());
  UsageToProto(usage, Now(), response->add_image_filesystems());
  return absl::OkStatus();
}

}  // namespace husk::cri
