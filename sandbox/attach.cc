#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/container_operations.h"
#include "sandbox/execution.h"
#include "sandbox/input_pump.h"
#include "sandbox/input_writer.h"
#include "sandbox/output_tap.h"

namespace husk::sandbox {
namespace {

constexpr auto kLastWords = std::chrono::seconds(10);

// Until the container's output is over.
Status Follow(const Context& context, const AttachOptions& options, OutputTap& tap, ClientStreams& streams) {
  while (true) {
    HUSK_ASSIGN_OR_RETURN(const OutputTap::Piece piece, tap.Take(context));
    if (piece.bytes.empty()) return absl::OkStatus();
    const bool wanted = piece.kind == OutputKind::kStandardOutput ? options.standard_output : options.standard_error;
    if (wanted) HUSK_RETURN_IF_ERROR(streams.Write(context, piece.kind, piece.bytes));
  }
}

// Several clients may type at once: their pieces do not mix.
Status WriteInTurn(const Context& context, agent::AgentClient& client, const Container& container, std::string bytes,
                   bool end) {
  HUSK_ASSIGN_OR_RETURN(const auto turn, container.input_turns->Take(context));
  return InputWriter(client, container.id, "", std::nullopt).Write(context, std::move(bytes), end);
}

}  // namespace

Status AttachClient(const Context& context, Pod& pod, const std::string& id, const AttachOptions& options,
                    ClientStreams& streams) {
  HUSK_ASSIGN_OR_RETURN(const auto client, ClientOfRunningContainer(pod, id));
  const auto container = pod.container(id);
  const auto status = pod.container_status(id);
  if (!container || !status || container->output == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("container ", id, " does not run"));
  }
  if (options.standard_input && !status->config.stdin) {
    return absl::FailedPreconditionError(absl::StrCat("stdin: container ", id, " was made without standard input"));
  }
  const bool once = status->config.stdin_once;
  const auto tap = std::make_shared<OutputTap>();
  const TapRegistration registration(*container->output, tap);
  const Context bounded = context.WithStopToken(tap->cut_off());
  Status done;
  {
    const auto write = [&](const Context& writing, std::string bytes) -> Status {
      // Only the first client of a container that wants it so ends the input: others may come.
      const bool end = bytes.empty();
      return end && !once ? absl::OkStatus() : WriteInTurn(writing, *client, *container, std::move(bytes), end);
    };
    InputPump::Target target{.container_id = id, .exec_id = "", .write = nullptr, .sizes = status->config.tty};
    if (options.standard_input) target.write = write;
    const InputPump pump(bounded, *client, std::move(target), streams);
    done = Follow(bounded, options, *tap, streams);
  }
  if (options.standard_input && once && !pod.ended()) {
    // The client went without saying that its input has ended.
    WriteInTurn(context.Detached(kLastWords), *client, *container, "", true).IgnoreError();
  }
  if (tap->cut_off().stop_requested()) return tap->CutOffError();
  return done;
}

}  // namespace husk::sandbox
