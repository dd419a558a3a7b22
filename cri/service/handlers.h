// What the CRI's calls do, without gRPC: blocking functions from a request to a response.
#ifndef HUSK_CRI_SERVICE_HANDLERS_H_
#define HUSK_CRI_SERVICE_HANDLERS_H_

#include <functional>
#include <map>
#include <string>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "cri/config/config.h"
#include "cri/lanes.h"
#include "cri/proto/api.pb.h"
#include "cri/service/pull_tracker.h"
#include "cri/streaming/server.h"
#include "images/image_service.h"
#include "sandbox/network/network.h"
#include "sandbox/runtime.h"

namespace husk::cri {

// What the handlers work on. Those borrowed must outlive them.
struct HandlerParts {
  sandbox::Runtime* runtime = nullptr;
  sandbox::Network* network = nullptr;
  images::ImageService* images = nullptr;
  const Lanes* lanes = nullptr;
  StreamingServer* streaming = nullptr;
  std::string scratch_directory;  // where the pods' scratch disks lie
  CgroupDriver cgroup_driver = CgroupDriver::kCgroupfs;
  Config config;  // with the maxima of VMs filled in: what pods' annotations are held against
  // Whether a pod could be started now, for RuntimeReady; cheap.
  std::function<Status()> runtime_ready;
  // Facts for Status's verbose answer, such as the accelerator; values are JSON. Cheap.
  std::function<std::map<std::string, std::string>()> information;
};

// One method per RPC that works: fills `response`, which is empty, or returns why not. Thread safe.
class Handlers {
 public:
  explicit Handlers(HandlerParts parts) : parts_(std::move(parts)) {}

  Status Version(const Context& context, const ::runtime::v1::VersionRequest& request,
                 ::runtime::v1::VersionResponse* response);
  Status RuntimeStatus(const Context& context, const ::runtime::v1::StatusRequest& request,
                       ::runtime::v1::StatusResponse* response);
  Status RuntimeConfig(const Context& context, const ::runtime::v1::RuntimeConfigRequest& request,
                       ::runtime::v1::RuntimeConfigResponse* response);
  Status UpdateRuntimeConfig(const Context& context, const ::runtime::v1::UpdateRuntimeConfigRequest& request,
                             ::runtime::v1::UpdateRuntimeConfigResponse* response);

  Status RunPodSandbox(const Context& context, const ::runtime::v1::RunPodSandboxRequest& request,
                       ::runtime::v1::RunPodSandboxResponse* response);
  Status StopPodSandbox(const Context& context, const ::runtime::v1::StopPodSandboxRequest& request,
                        ::runtime::v1::StopPodSandboxResponse* response);
  Status RemovePodSandbox(const Context& context, const ::runtime::v1::RemovePodSandboxRequest& request,
                          ::runtime::v1::RemovePodSandboxResponse* response);
  Status PodSandboxStatus(const Context& context, const ::runtime::v1::PodSandboxStatusRequest& request,
                          ::runtime::v1::PodSandboxStatusResponse* response);
  Status ListPodSandbox(const Context& context, const ::runtime::v1::ListPodSandboxRequest& request,
                        ::runtime::v1::ListPodSandboxResponse* response);

  Status CreateContainer(const Context& context, const ::runtime::v1::CreateContainerRequest& request,
                         ::runtime::v1::CreateContainerResponse* response);
  Status StartContainer(const Context& context, const ::runtime::v1::StartContainerRequest& request,
                        ::runtime::v1::StartContainerResponse* response);
  Status StopContainer(const Context& context, const ::runtime::v1::StopContainerRequest& request,
                       ::runtime::v1::StopContainerResponse* response);
  Status RemoveContainer(const Context& context, const ::runtime::v1::RemoveContainerRequest& request,
                         ::runtime::v1::RemoveContainerResponse* response);
  Status UpdateContainerResources(const Context& context, const ::runtime::v1::UpdateContainerResourcesRequest& request,
                                  ::runtime::v1::UpdateContainerResourcesResponse* response);
  Status UpdatePodSandboxResources(const Context& context,
                                   const ::runtime::v1::UpdatePodSandboxResourcesRequest& request,
                                   ::runtime::v1::UpdatePodSandboxResourcesResponse* response);
  Status ContainerStatus(const Context& context, const ::runtime::v1::ContainerStatusRequest& request,
                         ::runtime::v1::ContainerStatusResponse* response);
  Status ListContainers(const Context& context, const ::runtime::v1::ListContainersRequest& request,
                        ::runtime::v1::ListContainersResponse* response);
  Status ExecSync(const Context& context, const ::runtime::v1::ExecSyncRequest& request,
                  ::runtime::v1::ExecSyncResponse* response);
  // The URL at which the client finds the command's streams; nothing runs until it comes.
  Status Exec(const Context& context, const ::runtime::v1::ExecRequest& request, ::runtime::v1::ExecResponse* response);
  Status Attach(const Context& context, const ::runtime::v1::AttachRequest& request,
                ::runtime::v1::AttachResponse* response);
  Status PortForward(const Context& context, const ::runtime::v1::PortForwardRequest& request,
                     ::runtime::v1::PortForwardResponse* response);
  Status ReopenContainerLog(const Context& context, const ::runtime::v1::ReopenContainerLogRequest& request,
                            ::runtime::v1::ReopenContainerLogResponse* response);

  Status ContainerStats(const Context& context, const ::runtime::v1::ContainerStatsRequest& request,
                        ::runtime::v1::ContainerStatsResponse* response);
  Status ListContainerStats(const Context& context, const ::runtime::v1::ListContainerStatsRequest& request,
                            ::runtime::v1::ListContainerStatsResponse* response);
  Status PodSandboxStats(const Context& context, const ::runtime::v1::PodSandboxStatsRequest& request,
                         ::runtime::v1::PodSandboxStatsResponse* response);
  Status ListPodSandboxStats(const Context& context, const ::runtime::v1::ListPodSandboxStatsRequest& request,
                             ::runtime::v1::ListPodSandboxStatsResponse* response);
  Status ListMetricDescriptors(const Context& context, const ::runtime::v1::ListMetricDescriptorsRequest& request,
                               ::runtime::v1::ListMetricDescriptorsResponse* response);
  Status ListPodSandboxMetrics(const Context& context, const ::runtime::v1::ListPodSandboxMetricsRequest& request,
                               ::runtime::v1::ListPodSandboxMetricsResponse* response);

  Status ListImages(const Context& context, const ::runtime::v1::ListImagesRequest& request,
                    ::runtime::v1::ListImagesResponse* response);
  Status ImageStatus(const Context& context, const ::runtime::v1::ImageStatusRequest& request,
                     ::runtime::v1::ImageStatusResponse* response);
  Status PullImage(const Context& context, const ::runtime::v1::PullImageRequest& request,
                   ::runtime::v1::PullImageResponse* response);
  Status RemoveImage(const Context& context, const ::runtime::v1::RemoveImageRequest& request,
                     ::runtime::v1::RemoveImageResponse* response);
  Status ImageFsInfo(const Context& context, const ::runtime::v1::ImageFsInfoRequest& request,
                     ::runtime::v1::ImageFsInfoResponse* response);

 private:
  const HandlerParts parts_;
  PullTracker pulls_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_HANDLERS_H_
