// Numbers as networks write them.
#ifndef HUSK_CRI_STREAMING_BIG_ENDIAN_H_
#define HUSK_CRI_STREAMING_BIG_ENDIAN_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace husk::cri {

// The number in `count` bytes (at most 8) at `position`, which must be there.
inline std::uint64_t ReadBigEndian(std::string_view bytes, std::size_t position, std::size_t count) {
  std::uint64_t value = 0;
  for (const char byte : bytes.substr(position, count)) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

inline void AppendBigEndian(std::uint64_t value, std::size_t count, std::string* out) {
  while (count > 0) out->push_back(static_cast<char>(value >> (8 * --count) & 0xff));
}

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_BIG_ENDIAN_H_
