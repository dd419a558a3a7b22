// How a fuzz target says that something does not hold which always must.
#ifndef HUSK_IMAGES_FUZZ_REQUIRE_H_
#define HUSK_IMAGES_FUZZ_REQUIRE_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::images::fuzz {

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

}  // namespace husk::images::fuzz

#endif  // HUSK_IMAGES_FUZZ_REQUIRE_H_
