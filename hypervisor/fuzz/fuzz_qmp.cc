// QMP from a QEMU that is not itself any more: lines cut by reads anywhere, and commands with the strings in it. The
// first byte says how reads cut it.
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "agent/common/fuzz_require.h"
#include "hypervisor/qemu/qmp_codec.h"

namespace husk::hypervisor {
namespace {

using nlohmann::json;

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string Describe(const QmpMessage& message) {
  if (const auto* event = std::get_if<QmpEvent>(&message)) {
    fuzz::Require(event->data.is_object(), "an event's data is an object");
    return "event " + event->name + " " + Dump(event->data);
  }
  const auto* reply = std::get_if<QmpReply>(&message);
  if (reply == nullptr) return "greeting";
  if (reply->result.ok()) return "reply " + std::to_string(reply->id) + " " + Dump(*reply->result);
  // QEMU may leave the words out; the client says before them which command it was.
  fuzz::RequireSoundError(Annotate(reply->result.status(), "QMP device_add"));
  return "error " + std::to_string(reply->id) + " " + reply->result.status().ToString();
}

std::vector<std::string> Decode(std::string_view bytes, std::size_t piece) {
  QmpDecoder decoder;
  std::vector<std::string> described;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    std::vector<QmpMessage> messages;
    const Status status = decoder.Feed(bytes.substr(at, piece), messages);
    for (const QmpMessage& message : messages) described.push_back(Describe(message));
    if (status.ok()) continue;
    fuzz::RequireSoundError(status);
    described.push_back(status.ToString());
    break;
  }
  return described;
}

void RunCommand(std::string_view text) {
  const std::string line = EncodeQmpCommand(7, text, json{{"filename", std::string(text)}});
  fuzz::Require(line.find('\n') == line.size() - 1, "a command is one line");
  const json command = json::parse(line, nullptr, false);
  fuzz::Require(command.is_object() && command["id"] == 7 && command["arguments"].size() == 1,
                "a command is JSON whatever is in its strings");
}

void Run(fuzz::Script script) {
  const std::size_t piece = 1 + script.Byte();
  const std::string_view bytes = script.Rest();
  fuzz::Require(Decode(bytes, piece) == Decode(bytes, bytes.size() + 1), "it does not matter how reads cut the bytes");
  RunCommand(bytes.substr(0, 200));
}

}  // namespace
}  // namespace husk::hypervisor

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::hypervisor::Run(husk::fuzz::Script(data, size));
  return 0;
}
