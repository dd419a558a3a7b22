// What fuzz targets of every room share: how they say that something does not hold which always must, and how they
// read their input.
#ifndef HUSK_AGENT_COMMON_FUZZ_REQUIRE_H_
#define HUSK_AGENT_COMMON_FUZZ_REQUIRE_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::fuzz {

// Unless `holds`, ends the process, which libFuzzer takes for a finding.
inline void Require(bool holds, std::string_view what) {
  if (holds) return;
  static_cast<void>(std::fprintf(stderr, "does not hold: %.*s\n", static_cast<int>(what.size()), what.data()));
  std::abort();
}

// An error fit for the log and for a gRPC trailer, which holds 8 KiB: printable, and not long.
inline void RequireSoundError(const Status& status) {
  constexpr std::size_t kLongest = 8000;
  const std::string message(status.message());
  Require(!message.empty() && message.size() <= kLongest, "an error's message is not too long: " + message);
  for (const char c : message) Require(c >= ' ' && c <= '~', "an error's message is printable: " + message);
}

inline std::string_view AsText(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// An input that says step by step what shall happen. At its end it gives zeros and empty texts.
class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size) : rest_(AsText(data, size)) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }
  std::uint8_t Byte() {
    const std::string_view byte = Bytes(1);
    return byte.empty() ? std::uint8_t{0} : static_cast<std::uint8_t>(byte.front());
  }
  std::string_view Bytes(std::size_t count) {
    const std::string_view bytes = rest_.substr(0, count);
    rest_.remove_prefix(bytes.size());
    return bytes;
  }
  // A byte for the length, then the text.
  std::string_view Text() { return Bytes(Byte()); }
  std::string_view Rest() { return Bytes(rest_.size()); }

 private:
  std::string_view rest_;
};

}  // namespace husk::fuzz

#endif  // HUSK_AGENT_COMMON_FUZZ_REQUIRE_H_
