#include "cri/service/streams.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "cri/service/handlers.h"

namespace husk::cri {

namespace api = ::runtime::v1;

namespace {

Status CheckStreams(bool tty, bool standard_input, bool standard_output, bool standard_error) {
  if (tty && standard_error) {
    return absl::InvalidArgumentError("stderr: a terminal has one output, so tty and stderr exclude each other");
  }
  if (standard_input || standard_output || standard_error) return absl::OkStatus();
  return absl::InvalidArgumentError("stdin, stdout, stderr: at least one must be asked for");
}

StatusOr<sandbox::ContainerStatus> RunningContainer(sandbox::Runtime& runtime, const std::string& id) {
  if (id.empty()) return absl::InvalidArgumentError("container_id: missing");
  HUSK_ASSIGN_OR_RETURN(sandbox::ContainerStatus container, runtime.GetContainer(id, /*verbose=*/false));
  if (container.state == sandbox::ContainerState::kRunning) return container;
  return absl::FailedPreconditionError(absl::StrCat("container ", container.id, " does not run"));
}

}  // namespace

StreamOperation OperationOf(sandbox::Runtime* runtime) {
  return [runtime](const Context& context, const StreamRequest& request,
                   sandbox::ClientStreams& streams) -> StatusOr<std::int32_t> {
    if (request.kind == StreamRequest::Kind::kAttach) {
      HUSK_RETURN_IF_ERROR(runtime->Attach(context, request.container_id,
                                           {.standard_input = request.standard_input,
                                            .standard_output = request.standard_output,
                                            .standard_error = request.standard_error},
                                           streams));
      // The container's own exit code is in its status, not here.
      return 0;
    }
    return runtime->Exec(context, request.container_id,
                         {.command = request.command,
                          .tty = request.tty,
                          .standard_input = request.standard_input,
                          .standard_output = request.standard_output,
                          .standard_error = request.standard_error},
                         streams);
  };
}

ForwardOperation ForwardOf(sandbox::Runtime* runtime) {
  return [runtime](const Context& context, const StreamRequest& request, sandbox::PortExchange& exchange) {
    return runtime->PortForward(context, request.pod_id, exchange);
  };
}

Status Handlers::PortForward(const Context& context, const api::PortForwardRequest& request,
                             api::PortForwardResponse* response) {
  if (request.pod_sandbox_id().empty()) return absl::InvalidArgumentError("pod_sandbox_id: missing");
  StreamRequest wanted{.kind = StreamRequest::Kind::kPortForward};
  for (const std::int32_t port : request.port()) {
    if (port < 1 || port > 65535) {
      return absl::InvalidArgumentError(absl::StrCat("port: expected 1 to 65535, not ", port));
    }
    wanted.ports.push_back(static_cast<std::uint16_t>(port));
  }
  HUSK_ASSIGN_OR_RETURN(const sandbox::PodStatus pod,
                        parts_.runtime->GetPod(request.pod_sandbox_id(), /*verbose=*/false));
  if (pod.state != sandbox::PodState::kReady) {
    return absl::FailedPreconditionError(absl::StrCat("pod ", pod.id, " is not ready"));
  }
  wanted.pod_id = pod.id;
  spdlog::info("port-forward pod={} request={}", pod.id, context.request_id());
  HUSK_ASSIGN_OR_RETURN(*response->mutable_url(), parts_.streaming->UrlFor(std::move(wanted)));
  return absl::OkStatus();
}

Status Handlers::Exec(const Context& context, const api::ExecRequest& request, api::ExecResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckStreams(request.tty(), request.stdin(), request.stdout(), request.stderr()));
  if (request.cmd_size() == 0) return absl::InvalidArgumentError("cmd: is empty");
  HUSK_ASSIGN_OR_RETURN(const sandbox::ContainerStatus container,
                        RunningContainer(*parts_.runtime, request.container_id()));
  spdlog::info("exec container={} tty={} request={}", container.id, request.tty(), context.request_id());
  HUSK_ASSIGN_OR_RETURN(*response->mutable_url(),
                        parts_.streaming->UrlFor({.kind = StreamRequest::Kind::kExec,
                                                  .container_id = container.id,
                                                  .command = {request.cmd().begin(), request.cmd().end()},
                                                  .tty = request.tty(),
                                                  .standard_input = request.stdin(),
                                                  .standard_output = request.stdout(),
                                                  .standard_error = request.stderr()}));
  return absl::OkStatus();
}

Status Handlers::Attach(const Context& context, const api::AttachRequest& request, api::AttachResponse* response) {
  HUSK_RETURN_IF_ERROR(CheckStreams(request.tty(), request.stdin(), request.stdout(), request.stderr()));
  HUSK_ASSIGN_OR_RETURN(const sandbox::ContainerStatus container,
                        RunningContainer(*parts_.runtime, request.container_id()));
  if (request.tty() != container.config.tty) {
    return absl::InvalidArgumentError(absl::StrCat("tty: container ", container.id, " was made ",
                                                   container.config.tty ? "with a terminal" : "without a terminal"));
  }
  if (request.stdin() && !container.config.stdin) {
    return absl::InvalidArgumentError(
        absl::StrCat("stdin: container ", container.id, " was made without standard input"));
  }
  spdlog::info("attach container={} request={}", container.id, context.request_id());
  HUSK_ASSIGN_OR_RETURN(*response->mutable_url(), parts_.streaming->UrlFor({.kind = StreamRequest::Kind::kAttach,
                                                                            .container_id = container.id,
                                                                            .tty = request.tty(),
                                                                            .standard_input = request.stdin(),
                                                                            .standard_output = request.stdout(),
                                                                            .standard_error = request.stderr()}));
  return absl::OkStatus();
}

}  // namespace husk::cri
