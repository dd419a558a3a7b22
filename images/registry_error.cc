#include "images/registry_error.h"

#include <cstddef>
#include <nlohmann/json.hpp>

#include "images/text.h"

namespace husk::images {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kShown = 300;
constexpr std::size_t kMostErrors = 3;

// Deeper documents than any registry's are not worth a parser's stack.
bool IsShallow(std::string_view body) {
  constexpr std::size_t kMostBrackets = 64;
  std::size_t brackets = 0;
  for (const char byte : body) brackets += byte == '[' || byte == '{' ? 1 : 0;
  return brackets <= kMostBrackets;
}

std::string TextOf(const Json& error, const char* key) {
  const auto found = error.find(key);
  return found != error.end() && found->is_string() ? found->get<std::string>() : "";
}

// Empty if the body has no errors of the specification's form.
std::string ErrorsOf(std::string_view body) {
  if (!IsShallow(body)) return "";
  const Json document = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("errors") || !document["errors"].is_array()) return "";
  std::string text;
  std::size_t count = 0;
  for (const Json& error : document["errors"]) {
    if (!error.is_object() || count == kMostErrors) break;
    const std::string code = TextOf(error, "code");
    const std::string message = TextOf(error, "message");
    if (code.empty() && message.empty()) continue;
    text += Concat(count++ == 0 ? "" : "; ", code, code.empty() || message.empty() ? "" : ": ", message);
  }
  return text;
}

}  // namespace

std::string RegistryErrorText(std::string_view body) {
  const std::string errors = ErrorsOf(body);
  const std::string_view text = errors.empty() ? Strip(body) : std::string_view(errors);
  return Printable(text.substr(0, kShown));
}

}  // namespace husk::images
