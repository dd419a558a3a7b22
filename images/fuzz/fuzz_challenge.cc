// What a registry and its token server say on who may come in: challenges, the URL to go to, the token. The first byte
// picks which.
#include <algorithm>
#include <set>

#include "images/fuzz/require.h"
#include "images/registry_auth.h"
#include "images/text.h"
#include "images/url.h"

namespace husk::images::fuzz {
namespace {

bool HasControl(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); });
}

std::string Quoted(std::string_view value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + "\"";
}

std::string Render(const std::vector<AuthChallenge>& challenges) {
  std::string text;
  for (const AuthChallenge& challenge : challenges) {
    text += challenge.scheme + " ";
    for (const auto& [name, value] : challenge.parameters) text += Concat(name, "=", Quoted(value), ",");
    text += ",";
  }
  return text;
}

void RunUrl(const std::string& text) {
  const Url registry{.text = "https://127.0.0.1:5000/v2/", .scheme = "https", .host = "127.0.0.1", .port = "5000"};
  Require(!HasControl(UrlForMessage(text)), "a URL in a message is printable");
  for (const StatusOr<Url>& url : {ParseUrl(text), ResolveUrl(registry, text)}) {
    if (!url.ok()) {
      RequireSoundError(url.status());
      continue;
    }
    Require(!url->scheme.empty() && url->scheme == ToLower(url->scheme), "a scheme is in lower case");
    Require(!HasControl(url->text), "a URL has no control characters");
    const StatusOr<Url> again = ParseUrl(url->text);
    Require(again.ok() && again->SameOrigin(*url), "a URL stays what it is: " + Printable(url->text));
    if (CheckFollow(registry, *url).ok()) {
      Require(url->scheme == "https", "https never leads to what is not: " + Printable(url->text));
    }
    Require(UrlForMessage(url->text).find('?') == std::string::npos, "a message shows no query");
  }
}

void RunChallenges(std::string_view header) {
  const std::vector<AuthChallenge> challenges = ParseChallenges(header);
  for (const AuthChallenge& challenge : challenges) {
    Require(!challenge.scheme.empty() && challenge.scheme == ToLower(challenge.scheme), "a scheme is in lower case");
    for (const auto& [name, value] : challenge.parameters) {
      Require(!name.empty() && name == ToLower(name), "a parameter's name is in lower case");
      Require(value.size() <= header.size(), "a value comes from the header");
    }
    if (const auto realm = challenge.parameters.find("realm"); realm != challenge.parameters.end()) {
      RunUrl(realm->second);
    }
  }
  const std::vector<AuthChallenge> again = ParseChallenges(Render(challenges));
  Require(again.size() == challenges.size(), "challenges that are written again are as many");
  for (std::size_t i = 0; i < again.size(); ++i) {
    Require(again[i].scheme == challenges[i].scheme && again[i].parameters == challenges[i].parameters,
            "a challenge that is written again is the same");
  }
}

void RunToken(std::string_view json) {
  const auto token = ParseToken(json);
  if (!token) return;
  Require(!token->empty() && !HasControl(*token), "a token is fit for a header");
}

void Run(std::uint8_t choice, std::string_view text) {
  switch (choice % 3) {
    case 0:
      return RunChallenges(text);
    case 1:
      return RunToken(text);
    default:
      return RunUrl(std::string(text));
  }
}

}  // namespace
}  // namespace husk::images::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) husk::images::fuzz::Run(*data, husk::images::fuzz::AsText(data + 1, size - 1));
  return 0;
}
