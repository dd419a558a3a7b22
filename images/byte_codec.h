// Little-endian numbers and length-prefixed strings, to and from bytes.
#ifndef HUSK_IMAGES_BYTE_CODEC_H_
#define HUSK_IMAGES_BYTE_CODEC_H_

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace husk::images {

// Appends to `bytes`.
template <std::unsigned_integral Number>
void PutNumber(Number number, std::string& bytes) {
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    bytes += static_cast<char>(static_cast<std::uint64_t>(number) >> (8 * i) & 0xff);
  }
}

// Overwrites what is at `offset`, which must be there.
template <std::unsigned_integral Number>
void SetNumber(Number number, std::size_t offset, std::string& bytes) {
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    bytes[offset + i] = static_cast<char>(static_cast<std::uint64_t>(number) >> (8 * i) & 0xff);
  }
}

inline void PutString(std::string_view text, std::string& bytes) {
  PutNumber(static_cast<std::uint32_t>(text.size()), bytes);
  bytes += text;
}

// Reads what the functions above wrote. After the first read beyond the end everything reads as zero and empty, and
// ok() is false.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  template <std::unsigned_integral Number>
  Number Get() {
    std::uint64_t value = 0;
    const std::string_view bytes = Take(sizeof(Number));
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
    }
    return static_cast<Number>(value);
  }
  std::string GetString() { return std::string(Take(Get<std::uint32_t>())); }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::size_t remaining() const { return rest_.size(); }

 private:
  std::string_view Take(std::size_t length) {
    if (!ok_ || length > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view taken = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return taken;
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_BYTE_CODEC_H_
