// The services over a real gRPC channel: their calls, limits and ends, and their socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <latch>
#include <nlohmann/json.hpp>
#include <string>

#include "cri/service/grpc_status.h"
#include "cri/service/lane_call.h"
#include "cri/service/service_fixture.h"

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;
using grpc::StatusCode;
using testing::HasSubstr;

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

TEST_F(Service, AnnotationsThatAreNotAllowedAreRefusedBeforeAnythingIsMade) {
  config_.vm.allowed_annotations = {"husk.dev/default-memory"};
  config_.vm.maximum_memory = std::uint64_t{1} << 30;
  Start();
  const auto run = [this](const char* name, const char* value) {
    api::RunPodSandboxRequest request = Pod("web");
    (*request.mutable_config()->mutable_annotations())[name] = value;
    api::RunPodSandboxResponse response;
    return Call(&Runtime::RunPodSandbox, request, &response);
  };
  grpc::Status status = run("husk.dev/scratch-size", "1Gi");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(status.error_message(), testing::HasSubstr("config.annotations[husk.dev/scratch-size]"));
  status = run("husk.dev/default-memory", "2Gi");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), testing::HasSubstr("vm.default_memory (2Gi) is above vm.maximum_memory (1Gi)"));
  EXPECT_EQ(run("husk.dev/what", "1").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(runtime_.ListPods({}).empty());
  ASSERT_TRUE(run("husk.dev/default-memory", "512Mi").ok());
  ASSERT_EQ(runtime_.ListPods({}).size(), 1U);
  EXPECT_EQ(runtime_.ListPods({}).front().config.vm_choices.default_memory_bytes, std::uint64_t{512} << 20);
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
