#include "cri/huskctl/streams/command_status.h"

#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"

namespace husk::huskctl {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostShown = 4096;

// Empty if there is none, or if it is no text.
std::string Text(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

Json CausesOf(const Json& status) {
  const auto details = status.find("details");
  if (details == status.end() || !details->is_object()) return Json::array();
  const auto causes = details->find("causes");
  return causes != details->end() && causes->is_array() ? *causes : Json::array();
}

}  // namespace

StatusOr<int> ParseCommandStatus(const std::string& json) {
  const auto bad = [&json](const char* what) {
    return absl::InternalError(
        absl::StrCat("the streaming server's final status ", what, ": ", Printable(json, kMostShown)));
  };
  const Json status = Json::parse(json, nullptr, false);
  if (!status.is_object()) return bad("is no JSON object");
  const std::string verdict = Text(status, "status");
  if (verdict == "Success") return 0;
  if (verdict != "Failure") return bad("tells neither success nor failure");
  if (Text(status, "reason") != "NonZeroExitCode") {
    const std::string message = Text(status, "message");
    return absl::UnknownError(message.empty() ? "the command failed, and huskd does not say why"
                                              : Printable(message, kMostShown));
  }
  for (const Json& cause : CausesOf(status)) {
    int code = 0;
    if (!cause.is_object() || Text(cause, "reason") != "ExitCode") continue;
    if (absl::SimpleAtoi(Text(cause, "message"), &code) && code > 0 && code < 256) return code;
  }
  return bad("tells of an exit code, but not which");
}

}  // namespace husk::huskctl
