// The parts of a URL that decide where a request may go and what it may carry.
#ifndef HUSK_IMAGES_URL_H_
#define HUSK_IMAGES_URL_H_

#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::images {

struct Url {
  std::string text;    // absolute, without a fragment
  std::string scheme;  // lower case
  std::string host;    // without its port; "[...]" round IPv6
  std::string port;    // the scheme's own if none is written

  [[nodiscard]] bool SameOrigin(const Url& other) const {
    return scheme == other.scheme && host == other.host && port == other.port;
  }
};

// INVALID_ARGUMENT if it is no absolute URL. A user and password in it are refused, and control characters.
StatusOr<Url> ParseUrl(const std::string& text);

// `location` as a server at `base` gave it: absolute or relative.
StatusOr<Url> ResolveUrl(const Url& base, const std::string& location);

// `text` without what may be a secret in it: a user and password, and the query, where storage keeps its signatures;
// escaped, and only its beginning.
std::string UrlForMessage(std::string_view text);

// `text` made safe for a query's value.
std::string EscapeQuery(std::string_view text);

// OK if a server at `from` may send its client on to `to`: to itself; https anywhere but to link-local addresses, where
// clouds keep their machines' secrets; plain HTTP only from loopback to loopback. PERMISSION_DENIED says why not.
Status CheckFollow(const Url& from, const Url& to);

}  // namespace husk::images

#endif  // HUSK_IMAGES_URL_H_
