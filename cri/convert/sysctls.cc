#include "cri/convert/sysctls.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "agent/common/printable.h"
#include "cri/convert/common.h"

namespace husk::cri {

namespace {

constexpr std::size_t kLongestName = 253;  // Kubernetes' own
constexpr std::size_t kLongestValue = 4095;

// Its parts, from kernel to parameter. The first separator says what separates: in net/ipv4/conf/eth0.1/forwarding the
// dot is part of a name, in net.ipv4.conf.eth0/1.forwarding the slash is.
std::vector<std::string> Parts(const std::string& name) {
  const std::size_t first = name.find_first_of("./");
  return absl::StrSplit(name, first == std::string::npos ? '.' : name[first]);
}

bool IsPart(const std::string& part) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.' || c == '/';
  };
  // ".." would also be a way out, with a slash for a dot.
  const auto dots = [](const std::string& piece) { return piece.empty() || piece == "." || piece == ".."; };
  for (const char separator : {'.', '/'}) {
    const std::vector<std::string> pieces = absl::StrSplit(part, separator);
    if (std::any_of(pieces.begin(), pieces.end(), dots)) return false;
  }
  return std::all_of(part.begin(), part.end(), good);
}

bool IsNamespaced(const std::vector<std::string>& parts) {
  if (parts.size() < 2) return false;
  if (parts[0] == "net") return true;
  if (parts[0] == "fs") return parts[1] == "mqueue" && parts.size() > 2;
  if (parts[0] != "kernel" || parts.size() != 2) return false;
  return parts[1] == "sem" || absl::StartsWith(parts[1], "shm") || absl::StartsWith(parts[1], "msg");
}

Status CheckValue(const std::string& value, const std::string& field) {
  if (value.size() > kLongestValue) return FieldError(field, absl::StrCat("longer than ", kLongestValue, " bytes"));
  const auto bad = [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; };
  if (std::any_of(value.begin(), value.end(), bad)) return FieldError(field, "the value has a control character");
  return absl::OkStatus();
}

}  // namespace

Status CheckSysctls(const sandbox::StringMap& sysctls, const std::string& field) {
  for (const auto& [name, value] : sysctls) {
    if (name.size() > kLongestName) {
      return FieldError(absl::StrCat(field, "[", Printable(name, kLongestName), "]"),
                        absl::StrCat("longer than ", kLongestName, " bytes"));
    }
    const std::string here = absl::StrCat(field, "[", Printable(name, kLongestName), "]");
    const std::vector<std::string> parts = Parts(name);
    if (!std::all_of(parts.begin(), parts.end(), IsPart)) return FieldError(here, "not the name of a sysctl");
    if (!IsNamespaced(parts)) return FieldError(here, "not namespaced: it would be the node's, not the pod's");
    HUSK_RETURN_IF_ERROR(CheckValue(value, here));
  }
  return absl::OkStatus();
}

}  // namespace husk::cri
