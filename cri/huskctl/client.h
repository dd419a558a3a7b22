// The CRI's calls that huskctl makes, over huskd's unix socket.
#ifndef HUSK_CRI_HUSKCTL_CLIENT_H_
#define HUSK_CRI_HUSKCTL_CLIENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "agent/common/status.h"
#include "cri/proto/api.pb.h"

namespace husk::huskctl {

namespace api = ::runtime::v1;

inline constexpr char kDefaultEndpoint[] = "unix:///run/husk/huskd.sock";

// Thread safe. Errors are huskd's own; UNAVAILABLE says what to do when nobody answers.
class Client {
 public:
  // INVALID_ARGUMENT unless `endpoint` is unix:///PATH or /PATH. Connects with the first call.
  static StatusOr<std::unique_ptr<Client>> Connect(const std::string& endpoint);

  virtual ~Client() = default;

  virtual StatusOr<api::VersionResponse> Call(const api::VersionRequest& request) = 0;
  virtual StatusOr<api::StatusResponse> Call(const api::StatusRequest& request) = 0;
  virtual StatusOr<api::RunPodSandboxResponse> Call(const api::RunPodSandboxRequest& request) = 0;
  virtual StatusOr<api::StopPodSandboxResponse> Call(const api::StopPodSandboxRequest& request) = 0;
  virtual StatusOr<api::RemovePodSandboxResponse> Call(const api::RemovePodSandboxRequest& request) = 0;
  virtual StatusOr<api::PodSandboxStatusResponse> Call(const api::PodSandboxStatusRequest& request) = 0;
  virtual StatusOr<api::ListPodSandboxResponse> Call(const api::ListPodSandboxRequest& request) = 0;
  virtual StatusOr<api::CreateContainerResponse> Call(const api::CreateContainerRequest& request) = 0;
  virtual StatusOr<api::StartContainerResponse> Call(const api::StartContainerRequest& request) = 0;
  virtual StatusOr<api::StopContainerResponse> Call(const api::StopContainerRequest& request) = 0;
  virtual StatusOr<api::ContainerStatusResponse> Call(const api::ContainerStatusRequest& request) = 0;
  virtual StatusOr<api::ListContainersResponse> Call(const api::ListContainersRequest& request) = 0;
  virtual StatusOr<api::ExecSyncResponse> Call(const api::ExecSyncRequest& request) = 0;
  virtual StatusOr<api::ExecResponse> Call(const api::ExecRequest& request) = 0;
  virtual StatusOr<api::AttachResponse> Call(const api::AttachRequest& request) = 0;
  virtual StatusOr<api::PortForwardResponse> Call(const api::PortForwardRequest& request) = 0;
  virtual StatusOr<api::ListPodSandboxStatsResponse> Call(const api::ListPodSandboxStatsRequest& request) = 0;
  virtual StatusOr<api::PullImageResponse> Call(const api::PullImageRequest& request) = 0;
  virtual StatusOr<api::ImageStatusResponse> Call(const api::ImageStatusRequest& request) = 0;
  virtual StatusOr<api::ListImagesResponse> Call(const api::ListImagesRequest& request) = 0;
  virtual StatusOr<api::RemoveImageResponse> Call(const api::RemoveImageRequest& request) = 0;

  // Hands over each event as it comes, until huskd ends the stream; why it did.
  virtual Status Events(const std::function<void(const api::ContainerEventResponse&)>& each) = 0;
};

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_CLIENT_H_
