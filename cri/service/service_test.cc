// The services over a real gRPC channel on a unix socket.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <latch>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "cri/proto/api.grpc.pb.h"
#include "cri/service/fakes_for_test.h"
#include "cri/service/grpc_status.h"
#include "cri/service/lane_call.h"
#include "cri/service/server.h"
#include "cri/service/streams.h"
#include "sandbox/event_hub.h"

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;
using grpc::StatusCode;
using testing::HasSubstr;

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
        .runtime_ready = [this] { return ready_; },
        .information = [] { return std::map<std::string, std::string>{{"husk", R"({"accelerator":"tcg"})"}}; }});
    auto server = Server::Start(socket(), handlers_.get(), lanes_.get(), &events_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
    const auto channel = grpc::CreateChannel("unix:" + socket(), grpc::InsecureChannelCredentials());
    runtime_stub_ = api::RuntimeService::NewStub(channel);
    image_stub_ = api::ImageService::NewStub(channel);
  }
  void Stop() {
    if (server_) server_->Shutdown(std::chrono::seconds(60));
    server_.reset();
    if (lanes_) lanes_->Drain();
  }
  [[nodiscard]] std::string socket() const { return directory_ / "huskd.sock"; }

  static api::RunPodSandboxRequest Pod(const std::string& name) {
    api::RunPodSandboxRequest request;
    auto* metadata = request.mutable_config()->mutable_metadata();
    metadata->set_name(name);
    metadata->set_uid("u");
    metadata->set_namespace_("n");
    return request;
  }

  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (api::RuntimeService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return (runtime_stub_.get()->*method)(&context, request, response);
  }
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (api::ImageService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return (image_stub_.get()->*method)(&context, request, response);
  }

  using Runtime = api::RuntimeService::Stub;
  using Images = api::ImageService::Stub;

  std::filesystem::path directory_;
  sandbox::EventHub events_{{.queue_limit = 100}};
  FakeRuntime runtime_;
  FakeNetwork network_;
  FakeImages images_;
  Status ready_ = absl::OkStatus();
  std::unique_ptr<StreamingServer> streaming_;
  std::unique_ptr<Lanes> lanes_;
  std::unique_ptr<Handlers> handlers_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<api::RuntimeService::Stub> runtime_stub_;
  std::unique_ptr<api::ImageService::Stub> image_stub_;
};

// ---- streams --------------------------------------------------------------------------------------------------------

TEST_F(Service, ExecAnswersWithAUrlForARunningContainer) {
  Start();
  sandbox::ContainerConfig config;
  config.metadata.name = "app";
  const std::string id = runtime_.CreateContainer(Context::Background(), "pod", config).value();
  api::ExecRequest request;
  request.set_container_id(id);
  request.add_cmd("cat");
  request.set_stdout(true);
  api::ExecResponse response;
  EXPECT_EQ(Call(&Runtime::Exec, request, &response).error_code(), StatusCode::FAILED_PRECONDITION);
  ASSERT_TRUE(runtime_.StartContainer(Context::Background(), id).ok());
  const grpc::Status status = Call(&Runtime::Exec, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response.url(), testing::MatchesRegex("http://127.0.0.1:[0-9]+/exec/[-_A-Za-z0-9]+"));
  request.set_container_id("unknown");
  EXPECT_EQ(Call(&Runtime::Exec, request, &response).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(Service, ExecNamesTheFieldThatIsWrong) {
  Start();
  api::ExecRequest request;
  api::ExecResponse response;
  const auto expect = [&](const char* words) {
    const grpc::Status status = Call(&Runtime::Exec, request, &response);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr(words));
  };
  expect("stdin, stdout, stderr: at least one");
  request.set_stderr(true);
  request.set_tty(true);
  expect("stderr: a terminal has one output");
  request.set_tty(false);
  expect("cmd: is empty");
  request.add_cmd("cat");
  expect("container_id: missing");
}

TEST_F(Service, AttachFitsTheContainer) {
  Start();
  sandbox::ContainerConfig config;
  config.metadata.name = "app";
  const std::string id = runtime_.CreateContainer(Context::Background(), "pod", config).value();
  api::AttachRequest request;
  request.set_container_id(id);
  request.set_stdout(true);
  api::AttachResponse response;
  EXPECT_EQ(Call(&Runtime::Attach, request, &response).error_code(), StatusCode::FAILED_PRECONDITION);
  ASSERT_TRUE(runtime_.StartContainer(Context::Background(), id).ok());
  const grpc::Status status = Call(&Runtime::Attach, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response.url(), testing::MatchesRegex("http://127.0.0.1:[0-9]+/attach/[-_A-Za-z0-9]+"));
  request.set_tty(true);
  EXPECT_THAT(Call(&Runtime::Attach, request, &response).error_message(), HasSubstr("tty: container"));
  request.set_tty(false);
  request.set_stdin(true);
  EXPECT_THAT(Call(&Runtime::Attach, request, &response).error_message(), HasSubstr("stdin: container"));
}

TEST_F(Service, TheOperationIsTheRuntimes) {
  class Streams final : public sandbox::ClientStreams {
   public:
    StatusOr<std::string> ReadInput(const Context& /*context*/) override { return std::string(); }
    void IgnoreInput() override {}
    Status Write(const Context& /*context*/, sandbox::OutputKind /*kind*/, std::string_view bytes) override {
      output.append(bytes);
      return absl::OkStatus();
    }
    StatusOr<sandbox::TerminalSize> NextSize(const Context& context) override { return context.Check(); }
    std::string output;
  } streams;
  const auto exit_code = OperationOf(&runtime_)(Context::Background(), {.container_id = "c"}, streams);
  EXPECT_EQ(exit_code.value(), 42);
  EXPECT_EQ(streams.output, "out");
  StreamRequest attach{.kind = StreamRequest::Kind::kAttach, .container_id = "c"};
  EXPECT_EQ(OperationOf(&runtime_)(Context::Background(), attach, streams).value(), 0);
  EXPECT_EQ(streams.output, "outoutput of c");
  attach.standard_error = true;
  EXPECT_TRUE(absl::IsUnavailable(OperationOf(&runtime_)(Context::Background(), attach, streams).status()));
}

TEST_F(Service, SaysWhatItIs) {
  Start();
  api::VersionResponse version;
  ASSERT_TRUE(Call(&Runtime::Version, api::VersionRequest(), &version).ok());
  EXPECT_EQ(version.version(), "0.1.0");
  EXPECT_EQ(version.runtime_name(), "husk");
  EXPECT_EQ(version.runtime_version(), "0.1.0");
  EXPECT_EQ(version.runtime_api_version(), "v1");
  api::RuntimeConfigResponse config;
  ASSERT_TRUE(Call(&Runtime::RuntimeConfig, api::RuntimeConfigRequest(), &config).ok());
  ASSERT_TRUE(config.has_linux());
  EXPECT_EQ(config.linux().cgroup_driver(), api::CGROUPFS);
  api::UpdateRuntimeConfigResponse updated;
  EXPECT_TRUE(Call(&Runtime::UpdateRuntimeConfig, api::UpdateRuntimeConfigRequest(), &updated).ok());
}

TEST_F(Service, StatusTellsTheTruth) {
  network_.ready = absl::UnavailableError("no CNI configuration");
  ready_ = absl::NotFoundError("the guest kernel is gone");
  Start();
  api::StatusRequest request;
  request.set_verbose(true);
  api::StatusResponse status;
  ASSERT_TRUE(Call(&Runtime::Status, request, &status).ok());
  ASSERT_EQ(status.status().conditions_size(), 2);
  EXPECT_EQ(status.status().conditions(0).type(), "RuntimeReady");
  EXPECT_FALSE(status.status().conditions(0).status());
  EXPECT_EQ(status.status().conditions(0).message(), "the guest kernel is gone");
  EXPECT_EQ(status.status().conditions(1).type(), "NetworkReady");
  EXPECT_FALSE(status.status().conditions(1).status());
  EXPECT_EQ(status.status().conditions(1).message(), "no CNI configuration");
  ASSERT_EQ(status.runtime_handlers_size(), 2);
  EXPECT_TRUE(status.runtime_handlers(0).features().recursive_read_only_mounts());
  EXPECT_EQ(nlohmann::json::parse(status.info().at("husk")).at("accelerator"), "tcg");
  EXPECT_EQ(nlohmann::json::parse(status.info().at("lanes")).at("read_only").at("running"), 1);
  EXPECT_EQ(nlohmann::json::parse(status.info().at("pulls")).size(), 0U);
}

TEST_F(Service, APodLives) {
  Start();
  api::RunPodSandboxRequest request = Pod("web");
  (*request.mutable_config()->mutable_labels())["k"] = "v";
  api::RunPodSandboxResponse pod;
  ASSERT_TRUE(Call(&Runtime::RunPodSandbox, request, &pod).ok());
  EXPECT_EQ(pod.pod_sandbox_id(), "pod-of-web");

  api::PodSandboxStatusRequest status_request;
  status_request.set_pod_sandbox_id("pod-of-web");
  status_request.set_verbose(true);
  api::PodSandboxStatusResponse status;
  ASSERT_TRUE(Call(&Runtime::PodSandboxStatus, status_request, &status).ok());
  EXPECT_EQ(status.status().network().ip(), "10.88.0.2");
  EXPECT_EQ(status.status().labels().at("k"), "v");
  EXPECT_EQ(status.info().at("vm"), "{}");
  api::ListPodSandboxResponse list;
  ASSERT_TRUE(Call(&Runtime::ListPodSandbox, api::ListPodSandboxRequest(), &list).ok());
  EXPECT_EQ(list.items_size(), 1);

  api::CreateContainerRequest create;
  create.set_pod_sandbox_id("pod-of-web");
  create.mutable_config()->mutable_metadata()->set_name("app");
  create.mutable_config()->mutable_image()->set_image("i");
  api::CreateContainerResponse created;
  ASSERT_TRUE(Call(&Runtime::CreateContainer, create, &created).ok());
  api::StartContainerRequest start;
  start.set_container_id(created.container_id());
  api::StartContainerResponse started;
  EXPECT_TRUE(Call(&Runtime::StartContainer, start, &started).ok());
  api::StopContainerRequest stop;
  stop.set_container_id(created.container_id());
  stop.set_timeout(3);
  api::StopContainerResponse stopped;
  EXPECT_TRUE(Call(&Runtime::StopContainer, stop, &stopped).ok());
  stop.set_timeout(-1);
  EXPECT_TRUE(Call(&Runtime::StopContainer, stop, &stopped).ok());
  api::ReopenContainerLogRequest reopen;
  reopen.set_container_id(created.container_id());
  api::ReopenContainerLogResponse reopened;
  EXPECT_TRUE(Call(&Runtime::ReopenContainerLog, reopen, &reopened).ok());
  api::RemoveContainerRequest remove;
  remove.set_container_id(created.container_id());
  api::RemoveContainerResponse removed;
  EXPECT_TRUE(Call(&Runtime::RemoveContainer, remove, &removed).ok());
  EXPECT_THAT(runtime_.Calls(),
              testing::ElementsAre("start container-app", "stop container-app 3000000000", "stop container-app 0",
                                   "reopen container-app", "remove container-app"));
  api::ListContainersResponse containers;
  ASSERT_TRUE(Call(&Runtime::ListContainers, api::ListContainersRequest(), &containers).ok());
  EXPECT_EQ(containers.containers(0).pod_sandbox_id(), "pod-of-web");

  api::RemovePodSandboxRequest remove_pod;
  remove_pod.set_pod_sandbox_id("pod-of-web");
  api::RemovePodSandboxResponse removed_pod;
  EXPECT_TRUE(Call(&Runtime::RemovePodSandbox, remove_pod, &removed_pod).ok());
  EXPECT_EQ(Call(&Runtime::PodSandboxStatus, status_request, &status).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(Service, BadRequestsNameTheirField) {
  Start();
  api::RunPodSandboxRequest request = Pod("web");
  request.set_runtime_handler("runc");
  api::RunPodSandboxResponse response;
  grpc::Status status = Call(&Runtime::RunPodSandbox, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("runtime_handler: \"runc\""));
  status = Call(&Runtime::RunPodSandbox, api::RunPodSandboxRequest(), &response);
  EXPECT_THAT(status.error_message(), HasSubstr("config.metadata.name"));
  // An empty id is a prefix of every id: it must not reach the runtime.
  api::StopPodSandboxResponse stopped;
  EXPECT_EQ(Call(&Runtime::StopPodSandbox, api::StopPodSandboxRequest(), &stopped).error_code(),
            StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(runtime_.Calls(), testing::IsEmpty());
}

TEST_F(Service, ACancelReachesTheHandler) {
  std::promise<void> entered;
  runtime_.on_run_pod = [&entered](const Context& context) {
    entered.set_value();
    return SleepFor(context, std::chrono::hours(1));
  };
  Start();
  grpc::ClientContext context;
  grpc::Status status;
  std::jthread caller([&] {
    api::RunPodSandboxResponse response;
    status = runtime_stub_->RunPodSandbox(&context, Pod("web"), &response);
  });
  entered.get_future().wait();
  context.TryCancel();
  caller.join();
  EXPECT_EQ(status.error_code(), StatusCode::CANCELLED);
  Stop();  // returns only because the handler ended
  EXPECT_EQ(lanes_->counters(LaneClass::kVm).finished, 1U);
}

TEST_F(Service, TheDeadlineReachesTheHandler) {
  std::promise<Context::Clock::duration> remaining;
  runtime_.on_run_pod = [&remaining](const Context& context) {
    remaining.set_value(context.remaining());
    return SleepFor(context, std::chrono::hours(1));
  };
  Start();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  api::RunPodSandboxResponse response;
  const grpc::Status status = runtime_stub_->RunPodSandbox(&context, Pod("web"), &response);
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  // So much sooner that the answer is there before the client gives up.
  EXPECT_LE(remaining.get_future().get(), std::chrono::milliseconds(4900));
  Stop();
  EXPECT_EQ(lanes_->counters(LaneClass::kVm).finished, 1U);
}

TEST(TimeForCall, LeavesSomeForTheAnswer) {
  using std::chrono::seconds;
  EXPECT_EQ(TimeForCall(seconds(240)), seconds(230));
  EXPECT_EQ(TimeForCall(seconds(120)), seconds(114));
  EXPECT_EQ(TimeForCall(seconds(3600)), seconds(3590));
  EXPECT_EQ(TimeForCall(seconds(1)), std::chrono::milliseconds(950));
  EXPECT_EQ(TimeForCall(seconds(-1)), seconds(-1));
}

TEST_F(Service, AFullLaneRefusesAndReadsGoOn) {
  std::promise<void> open;
  const std::shared_future<void> opened = open.get_future().share();
  std::latch entered(1);
  runtime_.on_run_pod = [&](const Context&) {
    entered.count_down();
    opened.wait();
    return absl::OkStatus();
  };
  LaneLimitsByClass limits;
  limits.fill({.workers = 1, .queue = 0});
  Start(limits);
  std::jthread caller([&] {
    api::RunPodSandboxResponse response;
    EXPECT_TRUE(Call(&Runtime::RunPodSandbox, Pod("slow"), &response).ok());
  });
  entered.wait();
  api::RunPodSandboxResponse response;
  const grpc::Status refused = Call(&Runtime::RunPodSandbox, Pod("web"), &response);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("vm"));
  api::StatusResponse status;
  EXPECT_TRUE(Call(&Runtime::Status, api::StatusRequest(), &status).ok());
  api::StopPodSandboxRequest stop;
  stop.set_pod_sandbox_id("slow");
  api::StopPodSandboxResponse stopped;
  EXPECT_TRUE(Call(&Runtime::StopPodSandbox, stop, &stopped).ok());
  open.set_value();
}

TEST_F(Service, ExecBringsOutputAndTimeout) {
  std::vector<std::chrono::nanoseconds> timeouts;
  runtime_.on_exec = [&](std::chrono::nanoseconds timeout) -> StatusOr<sandbox::ExecResult> {
    timeouts.push_back(timeout);
    if (timeouts.size() == 2) return absl::DeadlineExceededError("the command ran for more than 7 s");
    return sandbox::ExecResult{.standard_output = std::string("a\0\xff", 3), .standard_error = "e", .exit_code = 42};
  };
  Start();
  api::ExecSyncRequest request;
  request.set_container_id("c");
  request.add_cmd("true");
  api::ExecSyncResponse response;
  ASSERT_TRUE(Call(&Runtime::ExecSync, request, &response).ok());
  EXPECT_EQ(response.stdout(), std::string("a\0\xff", 3));
  EXPECT_EQ(response.exit_code(), 42);
  request.set_timeout(7);
  EXPECT_EQ(Call(&Runtime::ExecSync, request, &response).error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(timeouts, testing::ElementsAre(std::chrono::seconds(0), std::chrono::seconds(7)));
  request.clear_cmd();
  EXPECT_EQ(Call(&Runtime::ExecSync, request, &response).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(Service, PullsShowTheirProgressWhileTheyRun) {
  std::promise<void> open;
  std::promise<void> reported;
  images_.on_pull = [&](const Context&, const std::string& reference, const images::RegistryCredentials& credentials,
                        const auto& progress) -> StatusOr<images::Image> {
    EXPECT_EQ(credentials.username, "me");
    progress({.bytes_done = 10, .bytes_total = 20, .layers_done = 1, .layers_total = 2, .waiting_for = "GET x"});
    reported.set_value();
    open.get_future().wait();
    images::Image image;
    image.id = "sha256:" + reference;
    return image;
  };
  Start();
  api::PullImageResponse pulled;
  std::jthread caller([&] {
    api::PullImageRequest request;
    request.mutable_image()->set_image("app");
    request.mutable_auth()->set_username("me");
    EXPECT_TRUE(Call(&Images::PullImage, request, &pulled).ok());
  });
  reported.get_future().wait();
  api::StatusRequest request;
  request.set_verbose(true);
  api::StatusResponse status;
  ASSERT_TRUE(Call(&Runtime::Status, request, &status).ok());
  const nlohmann::json pulls = nlohmann::json::parse(status.info().at("pulls"));
  ASSERT_EQ(pulls.size(), 1U);
  EXPECT_EQ(pulls[0].at("image"), "app");
  EXPECT_EQ(pulls[0].at("bytesDone"), 10);
  EXPECT_EQ(pulls[0].at("waitingFor"), "GET x");
  open.set_value();
  caller.join();
  EXPECT_EQ(pulled.image_ref(), "sha256:app");
}

TEST_F(Service, ImagesAreAskedForByAHandlerThatIsThere) {
  Start();
  api::PullImageRequest request;
  request.mutable_image()->set_image("app");
  request.mutable_image()->set_runtime_handler("runc");
  api::PullImageResponse response;
  const grpc::Status status = Call(&Images::PullImage, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("runtime_handler: \"runc\""));
}

TEST_F(Service, FailedPullsSayItTheKubeletsWay) {
  Status error;
  images_.on_pull = [&](const auto&...) -> StatusOr<images::Image> { return error; };
  Start();
  api::PullImageRequest request;
  request.mutable_image()->set_image("app");
  api::PullImageResponse response;
  error = absl::UnavailableError("connect: refused");
  grpc::Status status = Call(&Images::PullImage, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::UNKNOWN);
  EXPECT_EQ(status.error_message(), "RegistryUnavailable: connect: refused");
  error = absl::NotFoundError("no such tag");
  status = Call(&Images::PullImage, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
}

TEST_F(Service, ImagesAreListedAndFound) {
  images::Image image;
  image.id = "sha256:1";
  image.repository_tags = {"h/a:1"};
  image.size_bytes = 9;
  image.run.environment = {"A=b\xff"};
  images_.all = {image};
  Start();
  api::ListImagesResponse list;
  ASSERT_TRUE(Call(&Images::ListImages, api::ListImagesRequest(), &list).ok());
  EXPECT_EQ(list.images(0).repo_tags(0), "h/a:1");
  api::ListImagesRequest filtered;
  filtered.mutable_filter()->mutable_image()->set_image("other");
  ASSERT_TRUE(Call(&Images::ListImages, filtered, &list).ok());
  EXPECT_EQ(list.images_size(), 0);
  api::ImageStatusRequest status;
  status.mutable_image()->set_image("sha256:1");
  status.set_verbose(true);
  api::ImageStatusResponse found;
  ASSERT_TRUE(Call(&Images::ImageStatus, status, &found).ok());
  EXPECT_EQ(found.image().size(), 9U);
  EXPECT_THAT(found.info().at("config"), HasSubstr("environment"));
  status.mutable_image()->set_image("unknown");
  ASSERT_TRUE(Call(&Images::ImageStatus, status, &found).ok());
  EXPECT_FALSE(found.has_image());
  api::RemoveImageRequest remove;
  remove.mutable_image()->set_image("sha256:1");
  api::RemoveImageResponse removed;
  EXPECT_TRUE(Call(&Images::RemoveImage, remove, &removed).ok());
  api::ImageFsInfoResponse usage;
  ASSERT_TRUE(Call(&Images::ImageFsInfo, api::ImageFsInfoRequest(), &usage).ok());
  EXPECT_EQ(usage.image_filesystems(0).fs_id().mountpoint(), "/var/lib/husk/images");
  EXPECT_EQ(usage.image_filesystems(0).used_bytes().value(), 5U);
  EXPECT_GT(usage.image_filesystems(0).timestamp(), 0);
}

TEST_F(Service, LimitsChangeByTheKubeletsCalls) {
  Start();
  api::UpdateContainerResourcesRequest update;
  update.set_container_id("c1");
  update.mutable_linux()->set_memory_limit_in_bytes(1 << 20);
  api::UpdateContainerResourcesResponse updated;
  EXPECT_TRUE(Call(&Runtime::UpdateContainerResources, update, &updated).ok());
  update.mutable_linux()->set_cpu_shares(-1);
  const grpc::Status refused = Call(&Runtime::UpdateContainerResources, update, &updated);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("linux.cpu_shares"));
  api::UpdatePodSandboxResourcesRequest pod;
  pod.set_pod_sandbox_id("p1");
  pod.mutable_resources()->set_memory_limit_in_bytes(2 << 20);
  pod.mutable_overhead()->set_memory_limit_in_bytes(3 << 20);
  api::UpdatePodSandboxResourcesResponse changed;
  EXPECT_TRUE(Call(&Runtime::UpdatePodSandboxResources, pod, &changed).ok());
  EXPECT_THAT(runtime_.Calls(), testing::ElementsAre("update c1 1048576", "update pod p1 2097152 3145728"));
  api::CheckpointContainerResponse checkpoint;
  const grpc::Status none = Call(&Runtime::CheckpointContainer, api::CheckpointContainerRequest(), &checkpoint);
  EXPECT_EQ(none.error_code(), StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(none.error_message(), HasSubstr("does not checkpoint"));
}

TEST_F(Service, PortForwardGivesAUrlForAReadyPod) {
  Start();
  api::RunPodSandboxResponse made;
  ASSERT_TRUE(Call(&Runtime::RunPodSandbox, Pod("web"), &made).ok());
  api::PortForwardRequest request;
  api::PortForwardResponse response;
  EXPECT_THAT(Call(&Runtime::PortForward, request, &response).error_message(), HasSubstr("pod_sandbox_id"));
  request.set_pod_sandbox_id("no-such");
  EXPECT_EQ(Call(&Runtime::PortForward, request, &response).error_code(), StatusCode::NOT_FOUND);
  request.set_pod_sandbox_id(made.pod_sandbox_id());
  ASSERT_TRUE(Call(&Runtime::PortForward, request, &response).ok());
  EXPECT_THAT(response.url(), HasSubstr("/portforward/"));
  for (const int port : {0, -1, 65536}) {
    request.clear_port();
    request.add_port(80);
    request.add_port(port);
    const grpc::Status refused = Call(&Runtime::PortForward, request, &response);
    EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(refused.error_message(), HasSubstr("port: expected 1 to 65535, not " + std::to_string(port)));
  }
}

TEST_F(Service, ForwardingIsTheRuntimes) {
  sandbox::PortExchange exchange({.output = [](std::uint64_t, const std::string&) {},
                                  .output_ended = [](std::uint64_t) {},
                                  .over = [](std::uint64_t, const ::husk::Status&) {},
                                  .read_on = [] {}});
  const StreamRequest forward{.kind = StreamRequest::Kind::kPortForward, .pod_id = "p"};
  ASSERT_TRUE(ForwardOf(&runtime_)(Context::Background(), forward, exchange).ok());
  EXPECT_THAT(runtime_.Calls(), testing::ElementsAre("forward p"));
}

TEST_F(Service, StatsAndMetricsOfPodsAndContainers) {
  constexpr std::int64_t kTimestamp = 5'000'000'000;
  sandbox::PodFigures figures;
  figures.timestamp = kTimestamp;
  figures.cgroup.cpu.usage_nanoseconds = 2'000'000'000;
  figures.containers["container-main"].cgroup.memory.usage_bytes = 4096;
  runtime_.figures["pod-of-web"] = figures;
  Start();
  api::RunPodSandboxResponse made;
  ASSERT_TRUE(Call(&Runtime::RunPodSandbox, Pod("web"), &made).ok());
  api::CreateContainerRequest create;
  create.set_pod_sandbox_id(made.pod_sandbox_id());
  create.mutable_config()->mutable_metadata()->set_name("main");
  create.mutable_config()->mutable_image()->set_image("app");
  api::CreateContainerResponse created;
  ASSERT_TRUE(Call(&Runtime::CreateContainer, create, &created).ok());

  api::ContainerStatsRequest container;
  api::ContainerStatsResponse container_stats;
  EXPECT_EQ(Call(&Runtime::ContainerStats, container, &container_stats).error_code(), StatusCode::INVALID_ARGUMENT);
  container.set_container_id("none");
  EXPECT_EQ(Call(&Runtime::ContainerStats, container, &container_stats).error_code(), StatusCode::NOT_FOUND);
  container.set_container_id(created.container_id());
  ASSERT_TRUE(Call(&Runtime::ContainerStats, container, &container_stats).ok());
  EXPECT_EQ(container_stats.stats().memory().usage_bytes().value(), 4096U);
  api::PodSandboxStatsRequest pod;
  api::PodSandboxStatsResponse pod_stats;
  EXPECT_EQ(Call(&Runtime::PodSandboxStats, pod, &pod_stats).error_code(), StatusCode::INVALID_ARGUMENT);
  pod.set_pod_sandbox_id("none");
  EXPECT_EQ(Call(&Runtime::PodSandboxStats, pod, &pod_stats).error_code(), StatusCode::NOT_FOUND);
  pod.set_pod_sandbox_id(made.pod_sandbox_id());
  ASSERT_TRUE(Call(&Runtime::PodSandboxStats, pod, &pod_stats).ok());
  EXPECT_EQ(pod_stats.stats().linux().cpu().timestamp(), kTimestamp);

  api::ListContainerStatsResponse containers;
  ASSERT_TRUE(Call(&Runtime::ListContainerStats, api::ListContainerStatsRequest(), &containers).ok());
  EXPECT_EQ(containers.stats_size(), 1);
  api::ListPodSandboxStatsRequest other;
  other.mutable_filter()->set_id("another");
  api::ListPodSandboxStatsResponse pods;
  ASSERT_TRUE(Call(&Runtime::ListPodSandboxStats, other, &pods).ok());
  EXPECT_EQ(pods.stats_size(), 0);
  api::ListMetricDescriptorsResponse descriptors;
  ASSERT_TRUE(Call(&Runtime::ListMetricDescriptors, api::ListMetricDescriptorsRequest(), &descriptors).ok());
  EXPECT_GT(descriptors.descriptors_size(), 30);
  api::ListPodSandboxMetricsResponse metrics;
  ASSERT_TRUE(Call(&Runtime::ListPodSandboxMetrics, api::ListPodSandboxMetricsRequest(), &metrics).ok());
  ASSERT_EQ(metrics.pod_metrics_size(), 1);
  EXPECT_GT(metrics.pod_metrics(0).metrics_size(), 0);
  EXPECT_EQ(metrics.pod_metrics(0).container_metrics_size(), 1);
}

TEST_F(Service, StatsAndMetricsAreStreamedToo) {
  runtime_.figures["pod-of-web"].timestamp = 1;
  Start();
  api::RunPodSandboxResponse made;
  ASSERT_TRUE(Call(&Runtime::RunPodSandbox, Pod("web"), &made).ok());
  grpc::ClientContext containers_context;
  const auto containers = runtime_stub_->StreamContainerStats(&containers_context, api::StreamContainerStatsRequest());
  api::StreamContainerStatsResponse none;
  EXPECT_FALSE(containers->Read(&none));
  EXPECT_TRUE(containers->Finish().ok());
  grpc::ClientContext pods_context;
  const auto pods = runtime_stub_->StreamPodSandboxStats(&pods_context, api::StreamPodSandboxStatsRequest());
  api::StreamPodSandboxStatsResponse pod;
  ASSERT_TRUE(pods->Read(&pod));
  EXPECT_EQ(pod.pod_sandbox_stats(0).attributes().id(), made.pod_sandbox_id());
  EXPECT_FALSE(pods->Read(&pod));
  EXPECT_TRUE(pods->Finish().ok());
  grpc::ClientContext metrics_context;
  const auto metrics = runtime_stub_->StreamPodSandboxMetrics(&metrics_context, api::StreamPodSandboxMetricsRequest());
  api::StreamPodSandboxMetricsResponse metric;
  ASSERT_TRUE(metrics->Read(&metric));
  EXPECT_EQ(metric.pod_sandbox_metrics(0).pod_sandbox_id(), made.pod_sandbox_id());
  EXPECT_FALSE(metrics->Read(&metric));
  EXPECT_TRUE(metrics->Finish().ok());
}

TEST_F(Service, StreamedListsComeInPiecesAndWhole) {
  constexpr int kImages = 50;
  for (int i = 0; i < kImages; ++i) {
    images::Image image{.id = absl::StrCat("sha256:", i), .size_bytes = 1};
    // 50 images of 100 KB do not fit into one piece.
    image.repository_tags.push_back(std::string(100'000, 'a') + absl::StrCat(":", i));
    images_.all.push_back(image);
  }
  Start();
  grpc::ClientContext context;
  const auto stream = image_stub_->StreamImages(&context, api::StreamImagesRequest());
  api::StreamImagesResponse piece;
  std::vector<std::string> ids;
  int pieces = 0;
  while (stream->Read(&piece)) {
    ++pieces;
    EXPECT_GT(piece.images_size(), 0);
    EXPECT_LT(piece.ByteSizeLong(), std::size_t{2} << 20);
    for (const auto& image : piece.images()) ids.push_back(image.id());
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_GT(pieces, 3);
  ASSERT_EQ(ids.size(), static_cast<std::size_t>(kImages));
  for (int i = 0; i < kImages; ++i) EXPECT_EQ(ids[static_cast<std::size_t>(i)], absl::StrCat("sha256:", i));
}

TEST_F(Service, StreamedListsTakeFiltersAndMayBeEmpty) {
  images_.all.push_back({.id = "sha256:1", .size_bytes = 1});
  images_.all.push_back({.id = "sha256:2", .size_bytes = 1});
  Start();
  grpc::ClientContext images_context;
  api::StreamImagesRequest wanted;
  wanted.mutable_filter()->mutable_image()->set_image("sha256:2");
  const auto images = image_stub_->StreamImages(&images_context, wanted);
  api::StreamImagesResponse piece;
  ASSERT_TRUE(images->Read(&piece));
  ASSERT_EQ(piece.images_size(), 1);
  EXPECT_EQ(piece.images(0).id(), "sha256:2");
  EXPECT_FALSE(images->Read(&piece));
  EXPECT_TRUE(images->Finish().ok());

  grpc::ClientContext empty_context;
  const auto containers = runtime_stub_->StreamContainers(&empty_context, api::StreamContainersRequest());
  api::StreamContainersResponse none;
  EXPECT_FALSE(containers->Read(&none));
  EXPECT_TRUE(containers->Finish().ok());

  api::RunPodSandboxResponse made;
  ASSERT_TRUE(Call(&Runtime::RunPodSandbox, Pod("web"), &made).ok());
  grpc::ClientContext pods_context;
  const auto pods = runtime_stub_->StreamPodSandboxes(&pods_context, api::StreamPodSandboxesRequest());
  api::StreamPodSandboxesResponse pod;
  ASSERT_TRUE(pods->Read(&pod));
  ASSERT_EQ(pod.pod_sandboxes_size(), 1);
  EXPECT_EQ(pod.pod_sandboxes(0).id(), made.pod_sandbox_id());
  EXPECT_FALSE(pods->Read(&pod));
  EXPECT_TRUE(pods->Finish().ok());
}

TEST_F(Service, AnExceptionIsAnError) {
  runtime_.on_run_pod = [](const Context&) -> Status { throw std::runtime_error("a library's"); };
  Start();
  api::RunPodSandboxResponse response;
  const grpc::Status status = Call(&Runtime::RunPodSandbox, Pod("web"), &response);
  EXPECT_EQ(status.error_code(), StatusCode::INTERNAL);
  EXPECT_THAT(status.error_message(), HasSubstr("a library's"));
}

TEST_F(Service, TheSocketIsForRootAndGoesWithTheServer) {
  Start();
  struct stat socket_stat{};
  ASSERT_EQ(lstat(socket().c_str(), &socket_stat), 0);
  EXPECT_TRUE(S_ISSOCK(socket_stat.st_mode));
  EXPECT_EQ(socket_stat.st_mode & 07777, 0660U);
  const auto second = Server::Start(socket(), handlers_.get(), lanes_.get(), &events_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another process serves"));
  Stop();
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_F(Service, AStaleSocketIsReplacedAndAForeignFileIsNot) {
  {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    const std::string path = socket();
    std::copy(path.begin(), path.end(), address.sun_path);
    const UniqueFd stale(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  Start();
  api::VersionResponse version;
  EXPECT_TRUE(Call(&Runtime::Version, api::VersionRequest(), &version).ok());
  Stop();
  std::ofstream(socket()) << "precious";
  const auto refused = Server::Start(socket(), handlers_.get(), lanes_.get(), &events_);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(std::filesystem::is_regular_file(socket()));
}

TEST(GrpcStatus, EveryCodeGoesThereAndBack) {
  for (int code = 0; code <= 16; ++code) {
    const Status status(static_cast<absl::StatusCode>(code), "m");
    EXPECT_EQ(static_cast<int>(ToGrpcStatus(status).error_code()), code);
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)), status);
  }
}

TEST(GrpcStatus, LongMessagesKeepBothEnds) {
  const std::string text = "begin " + std::string(100'000, 'x') + " end";
  const std::string sent = ToGrpcStatus(absl::InternalError(text)).error_message();
  EXPECT_LT(sent.size(), 4096U);
  EXPECT_THAT(sent, testing::StartsWith("begin "));
  EXPECT_THAT(sent, testing::EndsWith(" end"));
}

}  // namespace
}  // namespace husk::cri
