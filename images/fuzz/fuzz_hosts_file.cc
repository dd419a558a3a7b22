// The text of a hosts.toml.
#include <algorithm>
#include <chrono>

#include "images/fuzz/require.h"
#include "images/hosts_file.h"
#include "images/text.h"
#include "images/url.h"

namespace husk::images::fuzz {
namespace {

// Nothing is there, so that no relative path in the text leads to a file.
constexpr const char* kPath = "/nonexistent/hosts.toml";

void RequireSound(const HostSettings& settings) {
  if (!settings.address.empty()) {
    const StatusOr<Url> url = ParseUrl(settings.address);
    Require(url.ok() && (url->scheme == "https" || url->scheme == "http"), "an address is a URL");
  }
  const auto is_control = [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); };
  for (const std::string& header : settings.headers) {
    Require(std::none_of(header.begin(), header.end(), is_control), "a header is one line");
    Require(header.find(": ") != std::string::npos && !header.starts_with(':'), "a header has a name");
    Require(!ToLower(header).starts_with("authorization:"), "the authorization is kept apart");
  }
  Require(std::none_of(settings.authorization.begin(), settings.authorization.end(), is_control),
          "the authorization is one line");
  if (settings.dial_timeout) {
    Require(*settings.dial_timeout > std::chrono::milliseconds(0) && *settings.dial_timeout <= std::chrono::minutes(10),
            "a time is within its limits");
  }
}

void Run(std::string_view text) {
  const StatusOr<HostsFile> hosts = ParseHostsFile(text, kPath);
  if (!hosts.ok()) {
    RequireSoundError(hosts.status());
    Require(std::string(hosts.status().message()).starts_with(kPath), "an error names the file");
    return;
  }
  RequireSound(hosts->server);
  for (const HostSettings& mirror : hosts->mirrors) {
    Require(!mirror.address.empty(), "a mirror has an address");
    RequireSound(mirror);
  }
}

}  // namespace
}  // namespace husk::images::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::images::fuzz::Run(husk::images::fuzz::AsText(data, size));
  return 0;
}
