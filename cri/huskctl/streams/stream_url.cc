#include "cri/huskctl/streams/stream_url.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"

namespace husk::huskctl {
namespace {

constexpr std::size_t kMostShown = 200;

// Host and port of "host", "host:port", "[host]" and "[host]:port"; the port empty if there is none.
std::optional<std::pair<std::string, std::string>> SplitAuthority(const std::string& authority) {
  std::string host;
  std::string rest;
  if (absl::StartsWith(authority, "[")) {
    const std::size_t close = authority.find(']');
    if (close == std::string::npos) return std::nullopt;
    host = authority.substr(1, close - 1);
    rest = authority.substr(close + 1);
  } else {
    const std::size_t colon = std::min(authority.find(':'), authority.size());
    host = authority.substr(0, colon);
    rest = authority.substr(colon);
  }
  if (host.empty() || (!rest.empty() && rest.front() != ':')) return std::nullopt;
  return std::pair(host, rest.empty() ? "" : rest.substr(1));
}

bool IsPort(const std::string& text) {
  std::uint32_t port = 0;
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit) && absl::SimpleAtoi(text, &port) &&
         port > 0 && port < 65536;
}

}  // namespace

std::string StreamUrl::authority() const {
  return absl::StrCat(host.find(':') == std::string::npos ? host : absl::StrCat("[", host, "]"), ":", port);
}

StatusOr<StreamUrl> ParseStreamUrl(const std::string& url) {
  const auto bad = [&url] {
    return absl::InternalError(
        absl::StrCat("huskd named a URL that nobody can come to: \"", Printable(url, kMostShown), "\""));
  };
  StreamUrl parsed;
  parsed.tls = absl::StartsWithIgnoreCase(url, "https://");
  if (!parsed.tls && !absl::StartsWithIgnoreCase(url, "http://")) return bad();
  const std::size_t begin = url.find("://") + 3;
  const std::size_t path = std::min(url.find('/', begin), url.size());
  const auto authority = SplitAuthority(url.substr(begin, path - begin));
  // What cannot stand in a request line has no business in a URL.
  if (!authority || !std::all_of(url.begin(), url.end(), absl::ascii_isgraph)) return bad();
  std::tie(parsed.host, parsed.port) = *authority;
  if (parsed.port.empty() && !absl::EndsWith(url.substr(0, path), ":")) parsed.port = parsed.tls ? "443" : "80";
  if (!IsPort(parsed.port)) return bad();
  parsed.target = path == url.size() ? "/" : url.substr(path);
  return parsed;
}

}  // namespace husk::huskctl
