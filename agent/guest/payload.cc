#include "agent/guest/payload.h"

namespace husk::agent {

std::string FieldHead(int field, std::size_t length) {
  constexpr std::size_t kLengthDelimited = 2;
  std::string head;
  const auto append_varint = [&head](std::size_t value) {
    for (; value >= 0x80; value >>= 7U) head.push_back(static_cast<char>(value | 0x80U));
    head.push_back(static_cast<char>(value));
  };
  append_varint((static_cast<std::size_t>(field) << 3U) | kLengthDelimited);
  append_varint(length);
  return head;
}

}  // namespace husk::agent
