#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "agent/common/context.h"
#include "cri/huskctl/streams/remote_command.h"
#include "cri/huskctl/streams/stream_commands.h"
#include "cri/huskctl/support.h"

namespace husk::huskctl {
namespace {

// The end of a container's streams shows before its exit does.
constexpr int kLooksForTheExit = 50;
constexpr auto kBetweenLooks = std::chrono::milliseconds(100);

Status CheckTerminal(const StreamOptions& options) {
  if (!options.tty || isatty(STDIN_FILENO) == 1) return absl::OkStatus();
  return absl::FailedPreconditionError("-t: standard input is no terminal; leave -t out, or run it in a terminal");
}

StatusOr<api::Container> FindRunning(Client& client, const std::string& name) {
  HUSK_ASSIGN_OR_RETURN(api::Container found, FindContainer(client, name));
  if (found.state() == api::CONTAINER_RUNNING) return found;
  return absl::FailedPreconditionError(
      absl::StrCat("container ", name, " (", ShortId(found.id()), ") is not running: ", StateName(found.state())));
}

RemoteCommandOptions StreamsOf(const StreamOptions& options, const std::string& url) {
  return {.url = url,
          .certificate_authority = options.certificate_authority,
          .standard_input = options.standard_input,
          .tty = options.tty};
}

StatusOr<int> ExecWithTimeout(Client& client, const std::string& container, const ExecOptions& options) {
  api::ExecSyncRequest request;
  request.set_container_id(container);
  request.mutable_cmd()->Add(options.command.begin(), options.command.end());
  request.set_timeout(options.timeout->count());
  HUSK_ASSIGN_OR_RETURN(const api::ExecSyncResponse result, client.Call(request));
  std::fwrite(result.stdout().data(), 1, result.stdout().size(), stdout);
  std::fwrite(result.stderr().data(), 1, result.stderr().size(), stderr);
  return result.exit_code();
}

// 0 if it runs on: a container may end its streams and live.
StatusOr<int> ExitCodeOf(Client& client, const std::string& container) {
  api::ContainerStatusRequest request;
  request.set_container_id(container);
  for (int look = 0; look < kLooksForTheExit; ++look) {
    HUSK_ASSIGN_OR_RETURN(const api::ContainerStatusResponse status, client.Call(request));
    if (status.status().state() == api::CONTAINER_EXITED) return status.status().exit_code();
    HUSK_RETURN_IF_ERROR(SleepFor(Context::Background(), kBetweenLooks));
  }
  return 0;
}

}  // namespace

StatusOr<int> Exec(Client& client, const ExecOptions& options) {
  HUSK_RETURN_IF_ERROR(CheckTerminal(options));
  HUSK_ASSIGN_OR_RETURN(const api::Container container, FindRunning(client, options.target));
  if (options.timeout) return ExecWithTimeout(client, container.id(), options);
  api::ExecRequest request;
  request.set_container_id(container.id());
  request.mutable_cmd()->Add(options.command.begin(), options.command.end());
  request.set_stdin(options.standard_input);
  request.set_tty(options.tty);
  request.set_stdout(true);
  request.set_stderr(!options.tty);
  HUSK_ASSIGN_OR_RETURN(const api::ExecResponse response, client.Call(request));
  HUSK_ASSIGN_OR_RETURN(const RemoteCommandEnd end, RunRemoteCommand(StreamsOf(options, response.url())));
  return end.exit_code;
}

StatusOr<int> Attach(Client& client, const StreamOptions& options) {
  HUSK_RETURN_IF_ERROR(CheckTerminal(options));
  HUSK_ASSIGN_OR_RETURN(const api::Container container, FindRunning(client, options.target));
  api::AttachRequest request;
  request.set_container_id(container.id());
  request.set_stdin(options.standard_input);
  request.set_tty(options.tty);
  request.set_stdout(true);
  request.set_stderr(!options.tty);
  HUSK_ASSIGN_OR_RETURN(const api::AttachResponse response, client.Call(request));
  RemoteCommandOptions streams = StreamsOf(options, response.url());
  streams.attached = true;
  HUSK_ASSIGN_OR_RETURN(const RemoteCommandEnd end, RunRemoteCommand(streams));
  if (!end.detached) return ExitCodeOf(client, container.id());
  std::fprintf(stderr, "\nhuskctl: detached; the container runs on\n");
  return 0;
}

}  // namespace husk::huskctl
