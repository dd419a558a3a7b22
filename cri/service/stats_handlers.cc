// Handlers of the calls about statistics and metrics.
#include <utility>

#include "absl/strings/str_cat.h"
#include "cri/convert/metrics.h"
#include "cri/convert/stats.h"
#include "cri/service/handlers.h"

namespace husk::cri {

namespace api = ::runtime::v1;

namespace {

Status CheckGiven(const char* field, const std::string& id) {
  return id.empty() ? absl::InvalidArgumentError(absl::StrCat(field, ": missing")) : absl::OkStatus();
}

}  // namespace

Status Handlers::ContainerStats(const Context& context, const api::ContainerStatsRequest& request,
                                api::ContainerStatsResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckGiven("container_id", request.container_id()));
  HUSK_ASSIGN_OR_RETURN(const sandbox::ContainerStats stats,
                        parts_.runtime->GetContainerStats(context, request.container_id()));
  ContainerStatsToProto(stats, parts_.scratch_directory, response->mutable_stats());
  return absl::OkStatus();
}

Status Handlers::ListContainerStats(const Context& context, const api::ListContainerStatsRequest& request,
                                    api::ListContainerStatsResponse* response) {
  const auto filter = ContainerFilterFromProto(request.filter());
  for (const sandbox::ContainerStats& stats : parts_.runtime->ListContainerStats(context, filter)) {
    ContainerStatsToProto(stats, parts_.scratch_directory, response->add_stats());
  }
  return absl::OkStatus();
}

Status Handlers::PodSandboxStats(const Context& context, const api::PodSandboxStatsRequest& request,
                                 api::PodSandboxStatsResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckGiven("pod_sandbox_id", request.pod_sandbox_id()));
  HUSK_ASSIGN_OR_RETURN(const sandbox::PodStats stats, parts_.runtime->GetPodStats(context, request.pod_sandbox_id()));
  PodStatsToProto(stats, parts_.scratch_directory, response->mutable_stats());
  return absl::OkStatus();
}

Status Handlers::ListPodSandboxStats(const Context& context, const api::ListPodSandboxStatsRequest& request,
                                     api::ListPodSandboxStatsResponse* response) {
  for (const sandbox::PodStats& stats : parts_.runtime->ListPodStats(context, PodFilterFromProto(request.filter()))) {
    PodStatsToProto(stats, parts_.scratch_directory, response->add_stats());
  }
  return absl::OkStatus();
}

Status Handlers::ListMetricDescriptors(const Context& /*context*/, const api::ListMetricDescriptorsRequest& /*request*/,
                                       api::ListMetricDescriptorsResponse* response) {
  MetricDescriptorsToProto(response->mutable_descriptors());
  return absl::OkStatus();
}

Status Handlers::ListPodSandboxMetrics(const Context& context, const api::ListPodSandboxMetricsRequest& /*request*/,
                                       api::ListPodSandboxMetricsResponse* response) {
  for (const sandbox::PodStats& stats : parts_.runtime->ListPodStats(context, {})) {
    PodMetricsToProto(stats, response->add_pod_metrics());
  }
  return absl::OkStatus();
}

}  // namespace husk::cri
