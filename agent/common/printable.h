// Words of strangers, fit for logs, for the CRI's texts (which have to be UTF-8) and for gRPC's trailers.
#ifndef HUSK_AGENT_COMMON_PRINTABLE_H_
#define HUSK_AGENT_COMMON_PRINTABLE_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace husk {

// The first `most` bytes of `text` in printable ASCII: white space as a blank, any other byte as \xNN. "..." stands for
// what was cut.
inline std::string Printable(std::string_view text, std::size_t most) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string shown;
  for (const char c : text.substr(0, most)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte <= 0x7e) {
      shown += c;
    } else if (c == '\n' || c == '\r' || c == '\t') {
      shown += ' ';
    } else {
      shown += "\\x";
      shown += kDigits[byte >> 4];
      shown += kDigits[byte & 0xf];
    }
  }
  if (text.size() > most) shown += "...";
  return shown;
}

}  // namespace husk

#endif  // HUSK_AGENT_COMMON_PRINTABLE_H_
