// The services over a real gRPC channel on a unix socket, with a fake of everything behind them.
#ifndef HUSK_CRI_SERVICE_SERVICE_FIXTURE_H_
#define HUSK_CRI_SERVICE_SERVICE_FIXTURE_H_

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "cri/proto/api.grpc.pb.h"
#include "cri/service/fakes_for_test.h"
#include "cri/service/server.h"
#include "cri/service/streams.h"
#include "sandbox/event_hub.h"

namespace husk::cri {

class Service : public testing::Test {
 protected:
  Service() {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-service-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  ~Service() override {
    Stop();
    std::filesystem::remove_all(directory_);
  }

  void Start(const LaneLimitsByClass& limits = Config().lanes) {
    auto streaming = StreamingServer::Start({}, OperationOf(&runtime_), ForwardOf(&runtime_));
    ASSERT_TRUE(streaming.ok()) << streaming.status();
    streaming_ = *std::move(streaming);
    lanes_ = std::make_unique<Lanes>(limits);
    handlers_ = std::make_unique<Handlers>(HandlerParts{
        .runtime = &runtime_,
        .network = &network_,
        .images = &images_,
        .lanes = lanes_.get(),
        .streaming = streaming_.get(),
        .cgroup_driver = CgroupDriver::kCgroupfs,
        .config = config_,
        .runtime_ready = [this] { return ready_; },
        .information = [] { return std::map<std::string, std::string>{{"husk", R"({"accelerator":"tcg"})"}}; }});
    auto server = Server::Start(socket(), handlers_.get(), lanes_.get(), &events_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
    const auto channel = grpc::CreateChannel("unix:" + socket(), grpc::InsecureChannelCredentials());
    runtime_stub_ = ::runtime::v1::RuntimeService::NewStub(channel);
    image_stub_ = ::runtime::v1::ImageService::NewStub(channel);
  }
  void Stop() {
    if (server_) server_->Shutdown(std::chrono::seconds(60));
    server_.reset();
    if (lanes_) lanes_->Drain();
  }
  [[nodiscard]] std::string socket() const { return directory_ / "huskd.sock"; }

  static ::runtime::v1::RunPodSandboxRequest Pod(const std::string& name) {
    ::runtime::v1::RunPodSandboxRequest request;
    auto* metadata = request.mutable_config()->mutable_metadata();
    metadata->set_name(name);
    metadata->set_uid("u");
    metadata->set_namespace_("n");
    return request;
  }

  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (::runtime::v1::RuntimeService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                                Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return (runtime_stub_.get()->*method)(&context, request, response);
  }
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (::runtime::v1::ImageService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                              Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return (image_stub_.get()->*method)(&context, request, response);
  }

  using Runtime = ::runtime::v1::RuntimeService::Stub;
  using Images = ::runtime::v1::ImageService::Stub;

  std::filesystem::path directory_;
  sandbox::EventHub events_{{.queue_limit = 100}};
  FakeRuntime runtime_;
  FakeNetwork network_;
  FakeImages images_;
  Status ready_ = absl::OkStatus();
  Config config_;  // set before Start
  std::unique_ptr<StreamingServer> streaming_;
  std::unique_ptr<Lanes> lanes_;
  std::unique_ptr<Handlers> handlers_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<::runtime::v1::RuntimeService::Stub> runtime_stub_;
  std::unique_ptr<::runtime::v1::ImageService::Stub> image_stub_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_SERVICE_FIXTURE_H_
