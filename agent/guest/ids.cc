#include "agent/guest/ids.h"

#include <algorithm>
#include <cstddef>

namespace husk::agent {
namespace {

constexpr std::size_t kMaximumIdLength = 128;

}  // namespace

Status CheckId(const std::string& id) {
  const bool good = !id.empty() && id.size() <= kMaximumIdLength && id[0] != '.' && id[0] != '-' &&
                    std::all_of(id.begin(), id.end(), [](char c) {
                      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
                             c == '.' || c == '-';
                    });
  if (!good) return absl::InvalidArgumentError("an id has to be 1 to 128 of the characters a-z, A-Z, 0-9, _ . -");
  return absl::OkStatus();
}

}  // namespace husk::agent
