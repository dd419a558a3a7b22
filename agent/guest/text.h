// Cutting up text. Debian's Abseil has a string_view of its own, so its functions do not take the standard one.
#ifndef HUSK_AGENT_GUEST_TEXT_H_
#define HUSK_AGENT_GUEST_TEXT_H_

#include <charconv>
#include <cstddef>
#include <string_view>
#include <system_error>
#include <vector>

namespace husk::agent {

// The parts between separators, empty ones included.
inline std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// The parts between runs of the separator, none of them empty.
inline std::vector<std::string_view> SplitWords(std::string_view text, char separator = ' ') {
  std::vector<std::string_view> words;
  for (const std::string_view part : Split(text, separator)) {
    if (!part.empty()) words.push_back(part);
  }
  return words;
}

// Without white space at both ends.
inline std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// True if all of `text` is a number of this type and base; only then `value` is set.
template <typename Number>
bool ParseNumber(std::string_view text, Number& value, int base = 10) {
  Number parsed{};
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const auto [stop, error] = std::from_chars(begin, end, parsed, base);
  if (text.empty() || error != std::errc() || stop != end) return false;
  value = parsed;
  return true;
}

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_TEXT_H_
