#include "hypervisor/qemu/qmp_codec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace husk::hypervisor {
namespace {

using nlohmann::json;

constexpr std::size_t kMaximumPrintable = 512;
constexpr int kMaximumDepth = 64;

std::string StringMember(const json& object, const char* name) {
  const auto member = object.find(name);
  return member != object.end() && member->is_string() ? member->get<std::string>() : std::string();
}

// QMP's few error classes; everything of interest is GenericError.
Status ErrorOf(const json& error) {
  const std::string error_class = StringMember(error, "class");
  const std::string description = Printable(StringMember(error, "desc"));
  if (error_class == "DeviceNotFound") return absl::NotFoundError(description);
  if (error_class == "CommandNotFound") return absl::UnimplementedError(description);
  return absl::InternalError(description);
}

// Parsed JSON is copied and printed by recursion, so its depth is looked at before it is parsed.
bool IsShallow(std::string_view line) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t index = 0; index < line.size(); ++index) {
    const char byte = line[index];
    if (in_string && byte == '\\') {
      ++index;
    } else if (byte == '"') {
      in_string = !in_string;
    } else if (!in_string && (byte == '[' || byte == '{')) {
      if (++depth > kMaximumDepth) return false;
    } else if (!in_string && (byte == ']' || byte == '}')) {
      --depth;
    }
  }
  return true;
}

StatusOr<QmpMessage> Classify(json message) {
  if (!message.is_object()) return absl::InvalidArgumentError("a QMP message is no object");
  if (message.contains("QMP")) return QmpGreeting{};
  if (message.contains("event")) {
    QmpEvent event{.name = StringMember(message, "event"), .data = json::object()};
    if (const auto data = message.find("data"); data != message.end() && data->is_object()) event.data = *data;
    return event;
  }
  const auto id = message.find("id");
  if (id == message.end() || !id->is_number_unsigned()) {
    return absl::InvalidArgumentError("a QMP message that is no greeting, no event and no reply to us");
  }
  const auto number = id->get<std::uint64_t>();
  if (const auto error = message.find("error"); error != message.end() && error->is_object()) {
    return QmpReply{.id = number, .result = ErrorOf(*error)};
  }
  if (const auto result = message.find("return"); result != message.end()) {
    return QmpReply{.id = number, .result = std::move(*result)};
  }
  return absl::InvalidArgumentError("a QMP message of no known kind");
}

}  // namespace

Status QmpDecoder::Feed(std::string_view bytes, std::vector<QmpMessage>& messages) {
  while (!bytes.empty()) {
    const auto end = bytes.find('\n');
    const auto part = bytes.substr(0, end);
    if (line_.size() + part.size() > kMaximumQmpLine) return absl::ResourceExhaustedError("a QMP line is too long");
    line_.append(part);
    if (end == std::string_view::npos) return absl::OkStatus();
    bytes.remove_prefix(end + 1);
    const std::string line = std::exchange(line_, std::string());
    if (line.find_first_not_of(" \r\t") == std::string::npos) continue;
    if (!IsShallow(line)) return absl::InvalidArgumentError("JSON on QMP is nested too deep");
    json message = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (message.is_discarded()) return absl::InvalidArgumentError(absl::StrCat("no JSON on QMP: ", Printable(line)));
    HUSK_ASSIGN_OR_RETURN(auto classified, Classify(std::move(message)));
    messages.push_back(std::move(classified));
  }
  return absl::OkStatus();
}

std::string EncodeQmpCommand(std::uint64_t id, std::string_view command, const json& arguments) {
  json message = {{"execute", command}, {"id", id}};
  if (!arguments.is_null()) message["arguments"] = arguments;
  // Invalid UTF-8 (a path's, say) must not throw.
  return message.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace) + "\n";
}

std::string Printable(std::string_view text) {
  std::string printable(text.substr(0, kMaximumPrintable));
  std::replace_if(
      printable.begin(), printable.end(), [](unsigned char byte) { return byte < ' ' || byte >= 0x7f; }, ' ');
  return printable;
}

}  // namespace husk::hypervisor
