#include "sandbox/id.h"

#include <sys/random.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"

namespace husk::sandbox {

std::string NewId() {
  std::array<char, 32> bytes{};
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t count = getrandom(bytes.data() + filled, bytes.size() - filled, 0);
    if (count < 0 && errno == EINTR) continue;
    // Only a kernel without the system call fails; ids that are not random would be worse than no huskd.
    if (count < 0) std::abort();
    filled += static_cast<std::size_t>(count);
  }
  return absl::BytesToHexString(absl::string_view(bytes.data(), bytes.size()));
}

std::int64_t NowNanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace husk::sandbox
