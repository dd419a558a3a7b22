#include "cri/streaming/ports.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "agent/common/printable.h"

namespace husk::cri {

StatusOr<std::uint16_t> ParsePort(std::string_view text) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::uint32_t port = 0;
  if (text.size() <= 5 && std::all_of(text.begin(), text.end(), digit)) {
    for (const char c : text) port = port * 10 + static_cast<std::uint32_t>(c - '0');
  }
  if (port >= 1 && port <= 65535) return static_cast<std::uint16_t>(port);
  return absl::InvalidArgumentError(absl::StrCat("port: expected 1 to 65535, not \"", Printable(text, 32), "\""));
}

StatusOr<std::vector<std::uint16_t>> PortsOfQuery(std::string_view target) {
  std::vector<std::uint16_t> ports;
  const std::size_t query = target.find('?');
  if (query == std::string_view::npos) return ports;
  const std::string parameters(target.substr(query + 1));
  for (const auto& parameter : absl::StrSplit(parameters, '&')) {
    const std::string text(parameter);
    const std::size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    if (name != "port" && name != "ports") continue;
    const std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
    for (const auto& part : absl::StrSplit(absl::StrReplaceAll(value, {{"%2C", ","}, {"%2c", ","}}), ',')) {
      HUSK_ASSIGN_OR_RETURN(const std::uint16_t port, ParsePort(std::string(part)));
      ports.push_back(port);
    }
  }
  return ports;
}

}  // namespace husk::cri
