// Abseil's string functions for std::string_view, which Debian's Abseil does not take.
#ifndef HUSK_IMAGES_TEXT_H_
#define HUSK_IMAGES_TEXT_H_

#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace husk::images {

inline absl::string_view AsAbsl(std::string_view text) {
  return {text.data(), text.size()};
}

template <typename Part>
decltype(auto) ToPart(const Part& part) {
  if constexpr (std::is_same_v<Part, std::string_view>) {
    return AsAbsl(part);
  } else {
    return (part);
  }
}

// All parts, text and numbers, one after the other.
template <typename... Parts>
std::string Concat(const Parts&... parts) {
  return absl::StrCat(ToPart(parts)...);
}

// Untrusted bytes made fit for a message: what is not printable ASCII becomes \xNN.
inline std::string Printable(std::string_view bytes) {
  return absl::CHexEscape(AsAbsl(bytes));
}

// The same, of something that may be long: its beginning. Errors travel in gRPC trailers, which hold a few KiB.
inline std::string Excerpt(std::string_view bytes) {
  constexpr std::size_t kShown = 200;
  return bytes.size() <= kShown ? Printable(bytes) : Printable(bytes.substr(0, kShown)) + "...";
}

inline std::string ToLower(std::string_view text) {
  return absl::AsciiStrToLower(AsAbsl(text));
}

inline std::string_view Strip(std::string_view text) {
  const absl::string_view stripped = absl::StripAsciiWhitespace(AsAbsl(text));
  return {stripped.data(), stripped.size()};
}

// The non-empty parts between separators.
inline std::vector<std::string_view> SplitNonEmpty(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = text.find(separator);
    if (end != 0) parts.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return parts;
}

template <typename Texts>
std::string Join(const Texts& texts, std::string_view separator) {
  std::string result;
  for (const auto& text : texts) {
    if (!result.empty()) result += separator;
    result += text;
  }
  return result;
}

}  // namespace husk::images

#endif  // HUSK_IMAGES_TEXT_H_
