#include "cri/huskctl/streams/port_mapping.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"

namespace husk::huskctl {
namespace {

constexpr std::size_t kMostShown = 100;

// Digits only: no sign, no blank.
std::optional<std::uint16_t> ParsePort(const std::string& text) {
  std::uint32_t port = 0;
  if (text.empty() || !std::all_of(text.begin(), text.end(), absl::ascii_isdigit)) return std::nullopt;
  if (!absl::SimpleAtoi(text, &port) || port > 65535) return std::nullopt;
  return static_cast<std::uint16_t>(port);
}

}  // namespace

StatusOr<PortMapping> ParsePortMapping(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string local_text = colon == std::string::npos ? text : text.substr(0, colon);
  const std::optional<std::uint16_t> local = colon == 0 ? std::optional<std::uint16_t>(0) : ParsePort(local_text);
  const std::optional<std::uint16_t> remote = colon == std::string::npos ? local : ParsePort(text.substr(colon + 1));
  if (!local || !remote || *remote == 0) {
    return absl::InvalidArgumentError(absl::StrCat("port \"", Printable(text, kMostShown),
                                                   "\": expected REMOTE, LOCAL:REMOTE or :REMOTE, with ports from 1 "
                                                   "to 65535; a LOCAL of 0 means any free port"));
  }
  return PortMapping{.local = *local, .remote = *remote};
}

}  // namespace husk::huskctl
