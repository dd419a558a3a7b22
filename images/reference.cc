#include "images/reference.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>

#include "images/digest.h"
#include "images/text.h"

namespace husk::images {
namespace {

// Docker's default registry, its old name, the repository prefix of its own images, and where its API is.
constexpr std::string_view kDefaultHost = "docker.io";
constexpr std::string_view kDefaultHostAlias = "index.docker.io";
constexpr std::string_view kDefaultApiHost = "registry-1.docker.io";
constexpr std::string_view kDefaultPrefix = "library/";
constexpr std::string_view kDefaultTag = "latest";
constexpr std::size_t kMaximumNameLength = 255;
constexpr std::size_t kMaximumTagLength = 128;

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsLower(char c) {
  return c >= 'a' && c <= 'z';
}
bool IsUpper(char c) {
  return c >= 'A' && c <= 'Z';
}
bool IsLowerAlphanumeric(char c) {
  return IsLower(c) || IsDigit(c);
}
bool IsAlphanumeric(char c) {
  return IsLower(c) || IsUpper(c) || IsDigit(c);
}

Status Invalid(std::string_view text, std::string_view fault) {
  return absl::InvalidArgumentError(Concat("image reference \"", Excerpt(text), "\": ", fault));
}

// Runs of letters and digits, separated by one dot, one or two underscores, or any number of hyphens.
bool IsPathComponent(std::string_view component) {
  std::size_t i = 0;
  while (true) {
    const std::size_t start = i;
    while (i < component.size() && IsLowerAlphanumeric(component[i])) ++i;
    if (i == start) return false;
    if (i == component.size()) return true;
    const char separator = component[i];
    std::size_t length = 0;
    while (i < component.size() && component[i] == separator) ++i, ++length;
    if (separator != '-' && separator != '_' && separator != '.') return false;
    if (separator == '.' && length > 1) return false;
    if (separator == '_' && length > 2) return false;
  }
}

bool IsRepository(std::string_view repository) {
  while (true) {
    const std::size_t slash = repository.find('/');
    if (!IsPathComponent(repository.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    repository.remove_prefix(slash + 1);
  }
}

bool IsDomainLabel(std::string_view label) {
  return !label.empty() && IsAlphanumeric(label.front()) && IsAlphanumeric(label.back()) &&
         std::all_of(label.begin(), label.end(), [](char c) { return IsAlphanumeric(c) || c == '-'; });
}

// Without its port; "[::1]" in brackets.
bool IsHostName(std::string_view name) {
  if (name.starts_with('[')) {
    if (!name.ends_with(']')) return false;
    const std::string literal(name.substr(1, name.size() - 2));
    in6_addr address{};
    // It reads up to a NUL.
    return literal.find('\0') == std::string::npos && inet_pton(AF_INET6, literal.c_str(), &address) == 1;
  }
  while (true) {
    const std::size_t dot = name.find('.');
    if (!IsDomainLabel(name.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    name.remove_prefix(dot + 1);
  }
}

// Where the port's colon is; npos if there is no port.
std::size_t PortColon(std::string_view host) {
  const std::size_t colon = host.rfind(':');
  const std::size_t bracket = host.rfind(']');
  if (colon == std::string_view::npos) return colon;
  if (bracket != std::string_view::npos && colon < bracket) return std::string_view::npos;
  return colon;
}

bool IsHost(std::string_view host) {
  const std::size_t colon = PortColon(host);
  if (!IsHostName(host.substr(0, colon))) return false;
  if (colon == std::string_view::npos) return true;
  const std::string_view port = host.substr(colon + 1);
  return !port.empty() && port.size() <= 5 && std::all_of(port.begin(), port.end(), IsDigit);
}

bool IsTag(std::string_view tag) {
  return !tag.empty() && tag.size() <= kMaximumTagLength && (IsAlphanumeric(tag.front()) || tag.front() == '_') &&
         std::all_of(tag.begin(), tag.end(),
                     [](char c) { return IsAlphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

// What stands before the first slash is a host only if it cannot be a repository of the default registry.
bool LooksLikeHost(std::string_view first) {
  return first == "localhost" || first.find_first_of(".:") != std::string_view::npos ||
         std::any_of(first.begin(), first.end(), IsUpper);
}

}  // namespace

StatusOr<Reference> ParseReference(std::string_view text) {
  Reference reference;
  std::string_view rest = text;
  if (const std::size_t at = rest.find('@'); at != std::string_view::npos) {
    reference.digest = rest.substr(at + 1);
    if (!IsDigest(reference.digest)) return Invalid(text, "the digest is not sha256: and 64 hexadecimal digits");
    rest = rest.substr(0, at);
  }
  if (ParseImageId(rest)) return Invalid(text, "64 hexadecimal digits are an image id, not a repository");
  const std::size_t slash = rest.find('/');
  if (slash != std::string_view::npos && LooksLikeHost(rest.substr(0, slash))) {
    reference.host = rest.substr(0, slash);
    rest.remove_prefix(slash + 1);
  } else {
    reference.host = kDefaultHost;
  }
  if (reference.host == kDefaultHostAlias) reference.host = kDefaultHost;
  if (!IsHost(reference.host)) return Invalid(text, "the registry's host is malformed");
  if (const std::size_t colon = rest.find(':'); colon != std::string_view::npos) {
    reference.tag = rest.substr(colon + 1);
    if (!IsTag(reference.tag)) return Invalid(text, "the tag is malformed");
    rest = rest.substr(0, colon);
  }
  if (rest.empty()) return Invalid(text, "the repository is missing");
  if (std::any_of(rest.begin(), rest.end(), IsUpper)) return Invalid(text, "the repository must be lower case");
  if (!IsRepository(rest)) return Invalid(text, "the repository is malformed");
  reference.repository = rest;
  if (reference.host == kDefaultHost && rest.find('/') == std::string_view::npos) {
    reference.repository.insert(0, kDefaultPrefix);
  }
  if (reference.Name().size() > kMaximumNameLength) return Invalid(text, "the name is longer than 255 bytes");
  if (reference.tag.empty() && reference.digest.empty()) reference.tag = kDefaultTag;
  return reference;
}

std::optional<std::string> ParseImageId(std::string_view text) {
  if (IsDigest(text)) return std::string(text);
  std::string with_algorithm = Concat("sha256:", text);
  if (IsDigest(with_algorithm)) return with_algorithm;
  return std::nullopt;
}

std::string ApiHost(std::string_view host) {
  return std::string(host == kDefaultHost ? kDefaultApiHost : host);
}

bool IsLoopbackHost(std::string_view host) {
  std::string name(host.substr(0, PortColon(host)));
  if (name == "localhost") return true;
  in_addr address{};
  if (inet_pton(AF_INET, name.c_str(), &address) == 1) return (ntohl(address.s_addr) >> 24) == IN_LOOPBACKNET;
  if (name.size() > 2 && name.front() == '[') name = name.substr(1, name.size() - 2);
  in6_addr address6{};
  return inet_pton(AF_INET6, name.c_str(), &address6) == 1 && IN6_IS_ADDR_LOOPBACK(&address6);
}

}  // namespace husk::images
