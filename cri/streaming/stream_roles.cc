#include "cri/streaming/stream_roles.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::cri {
namespace {

constexpr std::array<const char*, kStreamRoleCount> kNames = {"stdin", "stdout", "stderr", "error", "resize"};
constexpr std::size_t kMaximumSizeMessage = 1024;

std::size_t Index(StreamRole role) {
  return static_cast<std::size_t>(role);
}

std::optional<sandbox::TerminalSize> ParseSize(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto number = [&json](const char* name) -> std::optional<std::uint32_t> {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_number_unsigned()) return std::nullopt;
    const auto value = found->get<std::uint64_t>();
    return value <= 0xffff ? std::optional(static_cast<std::uint32_t>(value)) : std::nullopt;
  };
  const auto width = number("Width");
  const auto height = number("Height");
  if (!width || !height) return std::nullopt;
  return sandbox::TerminalSize{.columns = *width, .rows = *height};
}

}  // namespace

StreamRoles::StreamRoles(const StreamRequest& request, const StreamProtocol& protocol) {
  expected_[Index(StreamRole::kInput)] = request.standard_input;
  expected_[Index(StreamRole::kOutput)] = request.standard_output;
  expected_[Index(StreamRole::kErrorOutput)] = request.standard_error && !request.tty;
  expected_[Index(StreamRole::kStatus)] = true;
  expected_[Index(StreamRole::kResize)] = request.tty && protocol.resize;
  if (!protocol.websocket) return;
  for (std::size_t index = 0; index < kStreamRoleCount; ++index) {
    if (expected_[index]) streams_[index] = static_cast<WireStream>(index);
  }
}

bool StreamRoles::Open(WireStream stream, const WireHeaders& headers) {
  const auto type =
      std::find_if(headers.begin(), headers.end(), [](const auto& header) { return header.first == "streamtype"; });
  if (type == headers.end()) return false;
  for (std::size_t index = 0; index < kStreamRoleCount; ++index) {
    if (type->second != kNames[index]) continue;
    if (!expected_[index] || streams_[index]) return false;
    streams_[index] = stream;
    return true;
  }
  return false;
}

bool StreamRoles::complete() const {
  for (std::size_t index = 0; index < kStreamRoleCount; ++index) {
    if (expected_[index] && !streams_[index]) return false;
  }
  return true;
}

std::string StreamRoles::missing() const {
  std::string names;
  for (std::size_t index = 0; index < kStreamRoleCount; ++index) {
    if (expected_[index] && !streams_[index]) absl::StrAppend(&names, names.empty() ? "" : ", ", kNames[index]);
  }
  return names;
}

std::optional<StreamRole> StreamRoles::RoleOf(WireStream stream) const {
  for (std::size_t index = 0; index < kStreamRoleCount; ++index) {
    if (streams_[index] == stream) return static_cast<StreamRole>(index);
  }
  return std::nullopt;
}

std::optional<WireStream> StreamRoles::StreamOf(StreamRole role) const {
  return streams_[Index(role)];
}

std::optional<sandbox::TerminalSize> SizeReader::Take(std::string_view bytes) {
  std::optional<sandbox::TerminalSize> last;
  while (!bytes.empty()) {
    // A message has no braces inside.
    const std::size_t end = bytes.find('}');
    const bool whole = end != std::string_view::npos;
    const std::string_view piece = bytes.substr(0, whole ? end + 1 : end);
    bytes.remove_prefix(piece.size());
    // What is too long is no size, and its rest will not become one.
    if (partial_.size() + piece.size() <= kMaximumSizeMessage) partial_.append(piece);
    if (!whole) break;
    if (const auto size = ParseSize(std::exchange(partial_, std::string()))) last = size;
  }
  return last;
}

}  // namespace husk::cri
