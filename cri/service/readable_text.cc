#include "cri/service/readable_text.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace husk::cri {
namespace {

// A character at the beginning of `text`: its code point and length; a length of 0 if it is no UTF-8.
struct Character {
  std::uint32_t code = 0;
  std::size_t length = 0;
};

Character First(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {.code = lead, .length = 1};
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return {};
  std::uint32_t code = lead & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return {};
    code = code << 6U | (byte(i) & 0x3fU);
  }
  // Longer than it need be, a surrogate, or beyond Unicode.
  constexpr std::array<std::uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kLeast.at(length) || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return {};
  return {.code = code, .length = length};
}

bool Shows(std::uint32_t code) {
  // Controls; soft hyphen; marks of width, of direction, of lines and paragraphs; invisible operators; variation
  // selectors; byte order; tags.
  constexpr std::pair<std::uint32_t, std::uint32_t> kHidden[] = {
      {0x00, 0x1f},     {0x7f, 0x9f},     {0xad, 0xad},     {0x61c, 0x61c},   {0x180e, 0x180e}, {0x200b, 0x200f},
      {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe0fff}};
  return std::none_of(std::begin(kHidden), std::end(kHidden),
                      [code](const auto& range) { return code >= range.first && code <= range.second; });
}

}  // namespace

std::string ReadableText(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string shown;
  shown.reserve(text.size());
  while (!text.empty()) {
    const Character character = First(text);
    const std::string_view bytes = text.substr(0, std::max<std::size_t>(character.length, 1));
    text.remove_prefix(bytes.size());
    if (character.length > 0 && Shows(character.code)) {
      shown += bytes;
    } else if (bytes == "\n") {
      shown += "\\n";
    } else {
      for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        shown += "\\x";
        shown += kDigits[byte >> 4U];
        shown += kDigits[byte & 0xfU];
      }
    }
  }
  return shown;
}

}  // namespace husk::cri
