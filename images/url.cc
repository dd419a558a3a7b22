#include "images/url.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>

#include <algorithm>
#include <memory>

#include "images/reference.h"
#include "images/text.h"

namespace husk::images {
namespace {

struct UrlDeleter {
  void operator()(CURLU* handle) const { curl_url_cleanup(handle); }
};
using UrlHandle = std::unique_ptr<CURLU, UrlDeleter>;

std::string GetPart(CURLU* handle, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(handle, part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return "";
  std::string result(text);
  curl_free(text);
  return result;
}

StatusOr<Url> Parse(CURLU* handle, const std::string& text) {
  // libcurl would read up to a NUL, and lets a DEL pass.
  const auto is_control = [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); };
  if (std::any_of(text.begin(), text.end(), is_control)) {
    return absl::InvalidArgumentError(Concat("URL \"", UrlForMessage(text), "\": a control character"));
  }
  const CURLUcode code = curl_url_set(handle, CURLUPART_URL, text.c_str(), CURLU_NON_SUPPORT_SCHEME);
  if (code != CURLUE_OK)
    return absl::InvalidArgumentError(Concat("URL \"", UrlForMessage(text), "\": ", curl_url_strerror(code)));
  if (!GetPart(handle, CURLUPART_USER).empty() || !GetPart(handle, CURLUPART_PASSWORD).empty()) {
    return absl::InvalidArgumentError("a URL with a user name in it");
  }
  curl_url_set(handle, CURLUPART_FRAGMENT, nullptr, 0);
  Url url;
  url.scheme = ToLower(GetPart(handle, CURLUPART_SCHEME));
  url.host = ToLower(GetPart(handle, CURLUPART_HOST));
  url.port = GetPart(handle, CURLUPART_PORT);
  char* whole = nullptr;
  if (curl_url_get(handle, CURLUPART_URL, &whole, 0) != CURLUE_OK) {
    return absl::InvalidArgumentError(Concat("URL \"", UrlForMessage(text), "\" is not absolute"));
  }
  url.text = whole;
  curl_free(whole);
  return url;
}

bool IsLinkLocal(const std::string& host) {
  in_addr address{};
  if (inet_pton(AF_INET, host.c_str(), &address) == 1) return (ntohl(address.s_addr) >> 16) == 0xa9fe;
  in6_addr address6{};
  if (host.size() < 2 || host.front() != '[') return false;
  const std::string bare = host.substr(1, host.find_first_of("]%") - 1);
  if (inet_pton(AF_INET6, bare.c_str(), &address6) != 1) return false;
  if (IN6_IS_ADDR_V4MAPPED(&address6)) return address6.s6_addr[12] == 169 && address6.s6_addr[13] == 254;
  return IN6_IS_ADDR_LINKLOCAL(&address6);
}

}  // namespace

StatusOr<Url> ParseUrl(const std::string& text) {
  const UrlHandle handle(curl_url());
  return Parse(handle.get(), text);
}

StatusOr<Url> ResolveUrl(const Url& base, const std::string& location) {
  const UrlHandle handle(curl_url());
  HUSK_RETURN_IF_ERROR(Parse(handle.get(), base.text).status());
  return Parse(handle.get(), location);
}

std::string UrlForMessage(std::string_view text) {
  const std::size_t query = text.find_first_of("?#");
  std::string result(text.substr(0, query));
  const std::size_t scheme = result.find("://");
  const std::size_t begin = scheme == std::string::npos ? 0 : scheme + 3;
  if (const std::size_t at = result.find('@', begin); at < result.find('/', begin)) result.erase(begin, at + 1 - begin);
  return Excerpt(result);
}

std::string EscapeQuery(std::string_view text) {
  char* const escaped = curl_easy_escape(nullptr, text.data(), static_cast<int>(text.size()));
  if (escaped == nullptr) return "";
  std::string result(escaped);
  curl_free(escaped);
  return result;
}

Status CheckFollow(const Url& from, const Url& to) {
  const auto refuse = [&](std::string_view why) {
    return absl::PermissionDeniedError(
        Concat("the registry at ", from.host, " points to ", UrlForMessage(to.text), ": ", why));
  };
  if (from.SameOrigin(to)) return absl::OkStatus();
  if (to.scheme != "https" && to.scheme != "http") return refuse("neither https nor http");
  if (IsLinkLocal(to.host)) return refuse("a link-local address");
  if (to.scheme == "https") return absl::OkStatus();
  if (from.scheme == "http" && IsLoopbackHost(from.host) && IsLoopbackHost(to.host)) return absl::OkStatus();
  return refuse("plain HTTP is for loopback addresses only");
}

}  // namespace husk::images
