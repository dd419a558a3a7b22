#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/container_operations.h"
#include "sandbox/execution.h"
#include "sandbox/input_pump.h"
#include "sandbox/input_writer.h"

namespace husk::sandbox {

StatusOr<std::int32_t> ExecWithClient(const Context& context, Pod& pod, const std::string& id,
                                      const ExecOptions& options, ClientStreams& streams) {
  if (options.command.empty()) return absl::InvalidArgumentError("cmd: is empty");
  HUSK_ASSIGN_OR_RETURN(const auto client, ClientOfRunningContainer(pod, id));
  Execution execution(client, id, [&](OutputKind kind, std::string_view bytes) {
    const bool wanted =
        kind == OutputKind::kStandardOutput ? options.standard_output : options.standard_error && !options.tty;
    return wanted ? streams.Write(context, kind, bytes) : absl::OkStatus();
  });
  Status done = execution.Start(
      context, {.command = options.command, .tty = options.tty, .standard_input = options.standard_input});
  if (done.ok()) {
    // Ends with this block, before the process is forgotten.
    InputWriter writer(*client, id, execution.exec_id(), 0);
    InputPump::Target target{
        .container_id = id, .exec_id = execution.exec_id(), .write = nullptr, .sizes = options.tty};
    if (options.standard_input) {
      target.write = [&writer](const Context& writing, std::string bytes) {
        const bool end = bytes.empty();
        return writer.Write(writing, std::move(bytes), end);
      };
    }
    const InputPump pump(context, *client, std::move(target), streams);
    done = execution.Follow(context);
  }
  // After a failed start too: its answer may have been lost.
  if (!pod.ended()) execution.CleanUp(context);
  if (done.ok()) return execution.exit_code();
  return Annotate(done, absl::StrCat("run a command in container ", id));
}

}  // namespace husk::sandbox
