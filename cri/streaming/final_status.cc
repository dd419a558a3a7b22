#include "cri/streaming/final_status.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace husk::cri {
namespace {

using Json = nlohmann::json;

std::string Failure(const std::string& reason, const std::string& message, const Json& cause) {
  const Json status = {{"metadata", Json::object()},
                       {"status", "Failure"},
                       {"reason", reason},
                       {"message", message},
                       {"details", {{"causes", Json::array({cause})}}}};
  return status.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string FinalStatus(const StatusOr<std::int32_t>& outcome, bool json) {
  if (outcome.ok() && *outcome == 0) return json ? R"({"metadata":{},"status":"Success"})" : "";
  const std::string message = outcome.ok() ? absl::StrCat("the command ended with exit code ", *outcome)
                                           : std::string(outcome.status().message());
  if (!json) return message;
  if (outcome.ok()) {
    return Failure("NonZeroExitCode", message, {{"reason", "ExitCode"}, {"message", std::to_string(*outcome)}});
  }
  return Failure("InternalError", message, {{"message", message}});
}

}  // namespace husk::cri
