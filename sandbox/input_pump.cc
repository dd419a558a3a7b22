#include "sandbox/input_pump.h"

#include <utility>

#include "sandbox/logging.h"

namespace husk::sandbox {

InputPump::InputPump(const Context& context, agent::AgentClient& client, Target target, ClientStreams& streams)
    : context_(context.WithStopToken(stop_.get_token())),
      client_(client),
      target_(std::move(target)),
      streams_(streams) {
  if (target_.write) {
    input_thread_ = std::thread([this] {
      const Status pumped = PumpInput();
      streams_.IgnoreInput();
      if (!pumped.ok() && context_.Check().ok()) {
        spdlog::debug("container={} exec={} its input: {}", target_.container_id, target_.exec_id, Words(pumped));
      }
    });
  }
  if (target_.sizes) sizes_thread_ = std::thread([this] { PumpSizes(); });
}

InputPump::~InputPump() {
  stop_.request_stop();
  if (input_thread_.joinable()) input_thread_.join();
  if (sizes_thread_.joinable()) sizes_thread_.join();
}

Status InputPump::PumpInput() {
  while (true) {
    HUSK_ASSIGN_OR_RETURN(std::string bytes, streams_.ReadInput(context_));
    const bool end = bytes.empty();
    HUSK_RETURN_IF_ERROR(target_.write(context_, std::move(bytes)));
    if (end) return absl::OkStatus();
  }
}

void InputPump::PumpSizes() {
  while (true) {
    const StatusOr<TerminalSize> size = streams_.NextSize(context_);
    if (!size.ok()) return;
    agent::v1::ResizeTerminalRequest request;
    request.set_container_id(target_.container_id);
    request.set_exec_id(target_.exec_id);
    request.set_columns(size->columns);
    request.set_rows(size->rows);
    const Status resized = client_.ResizeTerminal(context_, request);
    if (!resized.ok()) {
      spdlog::debug("container={} exec={} resize: {}", target_.container_id, target_.exec_id, Words(resized));
    }
  }
}

}  // namespace husk::sandbox
