#include "cri/huskctl/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "cri/config/config.h"
#include "cri/proto/api.grpc.pb.h"

namespace husk::huskctl {

namespace {

class GrpcClient final : public Client {
 public:
  GrpcClient(std::string path, const std::shared_ptr<grpc::Channel>& channel)
      : path_(std::move(path)),
        runtime_(api::RuntimeService::NewStub(channel)),
        images_(api::ImageService::NewStub(channel)) {}

  StatusOr<api::VersionResponse> Call(const api::VersionRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::Version, request);
  }
  StatusOr<api::StatusResponse> Call(const api::StatusRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::Status, request);
  }
  StatusOr<api::RunPodSandboxResponse> Call(const api::RunPodSandboxRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::RunPodSandbox, request);
  }
  StatusOr<api::StopPodSandboxResponse> Call(const api::StopPodSandboxRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::StopPodSandbox, request);
  }
  StatusOr<api::RemovePodSandboxResponse> Call(const api::RemovePodSandboxRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::RemovePodSandbox, request);
  }
  StatusOr<api::PodSandboxStatusResponse> Call(const api::PodSandboxStatusRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::PodSandboxStatus, request);
  }
  StatusOr<api::ListPodSandboxResponse> Call(const api::ListPodSandboxRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::ListPodSandbox, request);
  }
  StatusOr<api::CreateContainerResponse> Call(const api::CreateContainerRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::CreateContainer, request);
  }
  StatusOr<api::StartContainerResponse> Call(const api::StartContainerRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::StartContainer, request);
  }
  StatusOr<api::StopContainerResponse> Call(const api::StopContainerRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::StopContainer, request);
  }
  StatusOr<api::ContainerStatusResponse> Call(const api::ContainerStatusRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::ContainerStatus, request);
  }
  StatusOr<api::ListContainersResponse> Call(const api::ListContainersRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::ListContainers, request);
  }
  StatusOr<api::ExecSyncResponse> Call(const api::ExecSyncRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::ExecSync, request);
  }
  StatusOr<api::ExecResponse> Call(const api::ExecRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::Exec, request);
  }
  StatusOr<api::AttachResponse> Call(const api::AttachRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::Attach, request);
  }
  StatusOr<api::PortForwardResponse> Call(const api::PortForwardRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::PortForward, request);
  }
  StatusOr<api::ListPodSandboxStatsResponse> Call(const api::ListPodSandboxStatsRequest& request) override {
    return Make(runtime_.get(), &api::RuntimeService::Stub::ListPodSandboxStats, request);
  }
  StatusOr<api::PullImageResponse> Call(const api::PullImageRequest& request) override {
    return Make(images_.get(), &api::ImageService::Stub::PullImage, request);
  }
  StatusOr<api::ImageStatusResponse> Call(const api::ImageStatusRequest& request) override {
    return Make(images_.get(), &api::ImageService::Stub::ImageStatus, request);
  }
  StatusOr<api::ListImagesResponse> Call(const api::ListImagesRequest& request) override {
    return Make(images_.get(), &api::ImageService::Stub::ListImages, request);
  }
  StatusOr<api::RemoveImageResponse> Call(const api::RemoveImageRequest& request) override {
    return Make(images_.get(), &api::ImageService::Stub::RemoveImage, request);
  }
  Status Events(const std::function<void(const api::ContainerEventResponse&)>& each) override {
    grpc::ClientContext context;
    const auto stream = runtime_->GetContainerEvents(&context, api::GetEventsRequest());
    api::ContainerEventResponse event;
    bool any = false;
    while (stream->Read(&event)) {
      any = true;
      each(event);
    }
    const grpc::Status status = stream->Finish();
    // Once there was one, somebody answered: what huskd says is the whole reason.
    if (any) return Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
    return Converted(status);
  }

 private:
  template <typename Stub, typename Request, typename Response>
  StatusOr<Response> Make(Stub* stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                          const Request& request) {
    grpc::ClientContext context;
    Response response;
    const grpc::Status status = (stub->*method)(&context, request, &response);
    if (status.ok()) return response;
    return Converted(status);
  }

  [[nodiscard]] Status Converted(const grpc::Status& status) const {
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      return absl::UnavailableError(absl::StrCat("nobody answers on ", path_, " (", status.error_message(),
                                                 "): is huskd running? --endpoint or HUSK_ENDPOINT name another "
                                                 "socket; huskctl check looks at this host"));
    }
    return Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

  const std::string path_;
  const std::unique_ptr<api::RuntimeService::Stub> runtime_;
  const std::unique_ptr<api::ImageService::Stub> images_;
};

}  // namespace

StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& endpoint) {
  HUSK_ASSIGN_OR_RETURN_DOING(const std::string path, cri::SocketPath(endpoint), "--endpoint");
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  return std::make_unique<GrpcClient>(
      path, grpc::CreateCustomChannel("unix:" + path, grpc::InsecureChannelCredentials(), arguments));
}

}  // namespace husk::huskctl
