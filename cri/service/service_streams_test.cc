// The services' exec, attach and port-forward.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "cri/service/service_fixture.h"

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;
using grpc::StatusCode;
using testing::HasSubstr;

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

}  // namespace
}  // namespace husk::cri
