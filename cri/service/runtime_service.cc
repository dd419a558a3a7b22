// Each RPC: its lane, and the handler that serves it.
#include "cri/proto/api.grpc.pb.h"
#include "cri/service/event_streams.h"
#include "cri/service/list_stream.h"
#include "cri/service/services.h"
#include "cri/service/unary_call.h"

namespace husk::cri {

namespace api = ::runtime::v1;

namespace {

// Why a call is refused; the kubelet and people read it.
constexpr char kCheckpoint[] =
    ": a container is a part of its pod's virtual machine, and Husk does not checkpoint it alone";

class RuntimeService final : public api::RuntimeService::CallbackService {
 public:
  RuntimeService(Handlers* handlers, Lanes* lanes, sandbox::EventHub* events)
      : handlers_(handlers), lanes_(lanes), event_streams_(events, &lanes->observer()) {}

  grpc::ServerUnaryReactor* Version(grpc::CallbackServerContext* context, const api::VersionRequest* request,
                                    api::VersionResponse* response) override {
    return Post(LaneClass::kReadOnly, "Version", &Handlers::Version, context, request, response);
  }
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context, const api::StatusRequest* request,
                                   api::StatusResponse* response) override {
    return Post(LaneClass::kReadOnly, "Status", &Handlers::RuntimeStatus, context, request, response);
  }
  grpc::ServerUnaryReactor* RuntimeConfig(grpc::CallbackServerContext* context,
                                          const api::RuntimeConfigRequest* request,
                                          api::RuntimeConfigResponse* response) override {
    return Post(LaneClass::kReadOnly, "RuntimeConfig", &Handlers::RuntimeConfig, context, request, response);
  }
  grpc::ServerUnaryReactor* UpdateRuntimeConfig(grpc::CallbackServerContext* context,
                                                const api::UpdateRuntimeConfigRequest* request,
                                                api::UpdateRuntimeConfigResponse* response) override {
    return Post(LaneClass::kReadOnly, "UpdateRuntimeConfig", &Handlers::UpdateRuntimeConfig, context, request,
                response);
  }
  grpc::ServerUnaryReactor* RunPodSandbox(grpc::CallbackServerContext* context,
                                          const api::RunPodSandboxRequest* request,
                                          api::RunPodSandboxResponse* response) override {
    return Post(LaneClass::kVm, "RunPodSandbox", &Handlers::RunPodSandbox, context, request, response);
  }
  grpc::ServerUnaryReactor* StopPodSandbox(grpc::CallbackServerContext* context,
                                           const api::StopPodSandboxRequest* request,
                                           api::StopPodSandboxResponse* response) override {
    return Post(LaneClass::kTeardown, "StopPodSandbox", &Handlers::StopPodSandbox, context, request, response);
  }
  grpc::ServerUnaryReactor* RemovePodSandbox(grpc::CallbackServerContext* context,
                                             const api::RemovePodSandboxRequest* request,
                                             api::RemovePodSandboxResponse* response) override {
    return Post(LaneClass::kTeardown, "RemovePodSandbox", &Handlers::RemovePodSandbox, context, request, response);
  }
  grpc::ServerUnaryReactor* PodSandboxStatus(grpc::CallbackServerContext* context,
                                             const api::PodSandboxStatusRequest* request,
                                             api::PodSandboxStatusResponse* response) override {
    return Post(LaneClass::kReadOnly, "PodSandboxStatus", &Handlers::PodSandboxStatus, context, request, response);
  }
  grpc::ServerUnaryReactor* ListPodSandbox(grpc::CallbackServerContext* context,
                                           const api::ListPodSandboxRequest* request,
                                           api::ListPodSandboxResponse* response) override {
    return Post(LaneClass::kReadOnly, "ListPodSandbox", &Handlers::ListPodSandbox, context, request, response);
  }
  grpc::ServerUnaryReactor* CreateContainer(grpc::CallbackServerContext* context,
                                            const api::CreateContainerRequest* request,
                                            api::CreateContainerResponse* response) override {
    return Post(LaneClass::kVm, "CreateContainer", &Handlers::CreateContainer, context, request, response);
  }
  grpc::ServerUnaryReactor* StartContainer(grpc::CallbackServerContext* context,
                                           const api::StartContainerRequest* request,
                                           api::StartContainerResponse* response) override {
    return Post(LaneClass::kVm, "StartContainer", &Handlers::StartContainer, context, request, response);
  }
  grpc::ServerUnaryReactor* StopContainer(grpc::CallbackServerContext* context,
                                          const api::StopContainerRequest* request,
                                          api::StopContainerResponse* response) override {
    return Post(LaneClass::kTeardown, "StopContainer", &Handlers::StopContainer, context, request, response);
  }
  grpc::ServerUnaryReactor* RemoveContainer(grpc::CallbackServerContext* context,
                                            const api::RemoveContainerRequest* request,
                                            api::RemoveContainerResponse* response) override {
    return Post(LaneClass::kTeardown, "RemoveContainer", &Handlers::RemoveContainer, context, request, response);
  }
  grpc::ServerUnaryReactor* ContainerStatus(grpc::CallbackServerContext* context,
                                            const api::ContainerStatusRequest* request,
                                            api::ContainerStatusResponse* response) override {
    return Post(LaneClass::kReadOnly, "ContainerStatus", &Handlers::ContainerStatus, context, request, response);
  }
  grpc::ServerUnaryReactor* ListContainers(grpc::CallbackServerContext* context,
                                           const api::ListContainersRequest* request,
                                           api::ListContainersResponse* response) override {
    return Post(LaneClass::kReadOnly, "ListContainers", &Handlers::ListContainers, context, request, response);
  }
  grpc::ServerUnaryReactor* ExecSync(grpc::CallbackServerContext* context, const api::ExecSyncRequest* request,
                                     api::ExecSyncResponse* response) override {
    return Post(LaneClass::kExec, "ExecSync", &Handlers::ExecSync, context, request, response);
  }
  grpc::ServerUnaryReactor* ReopenContainerLog(grpc::CallbackServerContext* context,
                                               const api::ReopenContainerLogRequest* request,
                                               api::ReopenContainerLogResponse* response) override {
    return Post(LaneClass::kVm, "ReopenContainerLog", &Handlers::ReopenContainerLog, context, request, response);
  }

  grpc::ServerUnaryReactor* Exec(grpc::CallbackServerContext* context, const api::ExecRequest* request,
                                 api::ExecResponse* response) override {
    return Post(LaneClass::kReadOnly, "Exec", &Handlers::Exec, context, request, response);
  }
  grpc::ServerUnaryReactor* Attach(grpc::CallbackServerContext* context, const api::AttachRequest* request,
                                   api::AttachResponse* response) override {
    return Post(LaneClass::kReadOnly, "Attach", &Handlers::Attach, context, request, response);
  }
  grpc::ServerUnaryReactor* PortForward(grpc::CallbackServerContext* context, const api::PortForwardRequest* request,
                                        api::PortForwardResponse* response) override {
    return Post(LaneClass::kReadOnly, "PortForward", &Handlers::PortForward, context, request, response);
  }
  grpc::ServerUnaryReactor* UpdateContainerResources(grpc::CallbackServerContext* context,
                                                     const api::UpdateContainerResourcesRequest* request,
                                                     api::UpdateContainerResourcesResponse* response) override {
    return Post(LaneClass::kVm, "UpdateContainerResources", &Handlers::UpdateContainerResources, context, request,
                response);
  }
  grpc::ServerUnaryReactor* UpdatePodSandboxResources(grpc::CallbackServerContext* context,
                                                      const api::UpdatePodSandboxResourcesRequest* request,
                                                      api::UpdatePodSandboxResourcesResponse* response) override {
    return Post(LaneClass::kVm, "UpdatePodSandboxResources", &Handlers::UpdatePodSandboxResources, context, request,
                response);
  }
  grpc::ServerUnaryReactor* ContainerStats(grpc::CallbackServerContext* context,
                                           const api::ContainerStatsRequest* request,
                                           api::ContainerStatsResponse* response) override {
    return Post(LaneClass::kStats, "ContainerStats", &Handlers::ContainerStats, context, request, response);
  }
  grpc::ServerUnaryReactor* ListContainerStats(grpc::CallbackServerContext* context,
                                               const api::ListContainerStatsRequest* request,
                                               api::ListContainerStatsResponse* response) override {
    return Post(LaneClass::kStats, "ListContainerStats", &Handlers::ListContainerStats, context, request, response);
  }
  grpc::ServerUnaryReactor* PodSandboxStats(grpc::CallbackServerContext* context,
                                            const api::PodSandboxStatsRequest* request,
                                            api::PodSandboxStatsResponse* response) override {
    return Post(LaneClass::kStats, "PodSandboxStats", &Handlers::PodSandboxStats, context, request, response);
  }
  grpc::ServerUnaryReactor* ListPodSandboxStats(grpc::CallbackServerContext* context,
                                                const api::ListPodSandboxStatsRequest* request,
                                                api::ListPodSandboxStatsResponse* response) override {
    return Post(LaneClass::kStats, "ListPodSandboxStats", &Handlers::ListPodSandboxStats, context, request, response);
  }
  grpc::ServerUnaryReactor* ListMetricDescriptors(grpc::CallbackServerContext* context,
                                                  const api::ListMetricDescriptorsRequest* request,
                                                  api::ListMetricDescriptorsResponse* response) override {
    return Post(LaneClass::kReadOnly, "ListMetricDescriptors", &Handlers::ListMetricDescriptors, context, request,
                response);
  }
  grpc::ServerUnaryReactor* ListPodSandboxMetrics(grpc::CallbackServerContext* context,
                                                  const api::ListPodSandboxMetricsRequest* request,
                                                  api::ListPodSandboxMetricsResponse* response) override {
    return Post(LaneClass::kStats, "ListPodSandboxMetrics", &Handlers::ListPodSandboxMetrics, context, request,
                response);
  }
  grpc::ServerUnaryReactor* CheckpointContainer(grpc::CallbackServerContext* context,
                                                const api::CheckpointContainerRequest* /*request*/,
                                                api::CheckpointContainerResponse* /*response*/) override {
    return Refuse(context, "CheckpointContainer" + std::string(kCheckpoint));
  }

  grpc::ServerWriteReactor<api::StreamPodSandboxesResponse>* StreamPodSandboxes(
      grpc::CallbackServerContext* context, const api::StreamPodSandboxesRequest* request) override {
    return ListStream<api::StreamPodSandboxesResponse>::Post(
        lanes_, LaneClass::kReadOnly, "StreamPodSandboxes", context,
        [handlers = handlers_, request](const Context& call) -> StatusOr<std::vector<api::StreamPodSandboxesResponse>> {
          api::ListPodSandboxRequest filtered;
          *filtered.mutable_filter() = request->filter();
          api::ListPodSandboxResponse list;
          HUSK_RETURN_IF_ERROR(handlers->ListPodSandbox(call, filtered, &list));
          return InPieces(list.mutable_items(), &api::StreamPodSandboxesResponse::mutable_pod_sandboxes);
        });
  }
  grpc::ServerWriteReactor<api::StreamContainersResponse>* StreamContainers(
      grpc::CallbackServerContext* context, const api::StreamContainersRequest* request) override {
    return ListStream<api::StreamContainersResponse>::Post(
        lanes_, LaneClass::kReadOnly, "StreamContainers", context,
        [handlers = handlers_, request](const Context& call) -> StatusOr<std::vector<api::StreamContainersResponse>> {
          api::ListContainersRequest filtered;
          *filtered.mutable_filter() = request->filter();
          api::ListContainersResponse list;
          HUSK_RETURN_IF_ERROR(handlers->ListContainers(call, filtered, &list));
          return InPieces(list.mutable_containers(), &api::StreamContainersResponse::mutable_containers);
        });
  }
  grpc::ServerWriteReactor<api::StreamContainerStatsResponse>* StreamContainerStats(
      grpc::CallbackServerContext* context, const api::StreamContainerStatsRequest* request) override {
    return ListStream<api::StreamContainerStatsResponse>::Post(
        lanes_, LaneClass::kStats, "StreamContainerStats", context,
        [handlers = handlers_,
         request](const Context& call) -> StatusOr<std::vector<api::StreamContainerStatsResponse>> {
          api::ListContainerStatsRequest filtered;
          *filtered.mutable_filter() = request->filter();
          api::ListContainerStatsResponse list;
          HUSK_RETURN_IF_ERROR(handlers->ListContainerStats(call, filtered, &list));
          return InPieces(list.mutable_stats(), &api::StreamContainerStatsResponse::mutable_container_stats);
        });
  }
  grpc::ServerWriteReactor<api::StreamPodSandboxStatsResponse>* StreamPodSandboxStats(
      grpc::CallbackServerContext* context, const api::StreamPodSandboxStatsRequest* request) override {
    return ListStream<api::StreamPodSandboxStatsResponse>::Post(
        lanes_, LaneClass::kStats, "StreamPodSandboxStats", context,
        [handlers = handlers_,
         request](const Context& call) -> StatusOr<std::vector<api::StreamPodSandboxStatsResponse>> {
          api::ListPodSandboxStatsRequest filtered;
          *filtered.mutable_filter() = request->filter();
          api::ListPodSandboxStatsResponse list;
          HUSK_RETURN_IF_ERROR(handlers->ListPodSandboxStats(call, filtered, &list));
          return InPieces(list.mutable_stats(), &api::StreamPodSandboxStatsResponse::mutable_pod_sandbox_stats);
        });
  }
  grpc::ServerWriteReactor<api::StreamPodSandboxMetricsResponse>* StreamPodSandboxMetrics(
      grpc::CallbackServerContext* context, const api::StreamPodSandboxMetricsRequest* /*request*/) override {
    return ListStream<api::StreamPodSandboxMetricsResponse>::Post(
        lanes_, LaneClass::kStats, "StreamPodSandboxMetrics", context,
        [handlers = handlers_](const Context& call) -> StatusOr<std::vector<api::StreamPodSandboxMetricsResponse>> {
          api::ListPodSandboxMetricsRequest filtered;
          api::ListPodSandboxMetricsResponse list;
          HUSK_RETURN_IF_ERROR(handlers->ListPodSandboxMetrics(call, filtered, &list));
          return InPieces(list.mutable_pod_metrics(),
                          &api::StreamPodSandboxMetricsResponse::mutable_pod_sandbox_metrics);
        });
  }
  grpc::ServerWriteReactor<api::ContainerEventResponse>* GetContainerEvents(
      grpc::CallbackServerContext* /*context*/, const api::GetEventsRequest* /*request*/) override {
    return event_streams_.Open();
  }

 private:
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Post(LaneClass lane_class, const char* method,
                                 husk::Status (Handlers::*handler)(const Context&, const Request&, Response*),
                                 grpc::CallbackServerContext* context, const Request* request, Response* response) {
    return UnaryCall::Post(lanes_, lane_class, method, context,
                           [handlers = handlers_, handler, request, response](const Context& call) {
                             return (handlers->*handler)(call, *request, response);
                           });
  }

  Handlers* const handlers_;
  Lanes* const lanes_;
  EventStreams event_streams_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewRuntimeService(Handlers* handlers, Lanes* lanes, sandbox::EventHub* events) {
  return std::make_unique<RuntimeService>(handlers, lanes, events);
}

}  // namespace husk::cri
