#include "sandbox/network/bandwidth.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

constexpr char kIngress[] = "kubernetes.io/ingress-bandwidth";
constexpr char kEgress[] = "kubernetes.io/egress-bandwidth";
constexpr double kLeast = 1e3;
constexpr double kMost = 1e15;
constexpr std::uint64_t kLeastBurst = std::uint64_t{1} << 20;
constexpr std::uint64_t kMostBurst = (std::uint64_t{1} << 31) - 1;

constexpr std::array<std::pair<std::string_view, double>, 12> kUnits = {{{"", 1},
                                                                         {"k", 1e3},
                                                                         {"M", 1e6},
                                                                         {"G", 1e9},
                                                                         {"T", 1e12},
                                                                         {"P", 1e15},
                                                                         {"Ki", 1024},
                                                                         {"Mi", 1048576},
                                                                         {"Gi", 1073741824},
                                                                         {"Ti", 1099511627776},
                                                                         {"Pi", 1125899906842624},
                                                                         {"m", 1e-3}}};

// A quantity of Kubernetes, in bits a second.
std::optional<std::uint64_t> ParseRate(const std::string& text) {
  std::size_t length = 0;
  while (length < text.size() && (absl::ascii_isdigit(static_cast<unsigned char>(text[length])) ||
                                  text[length] == '.' || (length == 0 && text[length] == '+'))) {
    ++length;
  }
  // With an exponent the number is all of it.
  const bool exponent = text.size() > length + 1 && (text[length] == 'e' || text[length] == 'E');
  if (exponent) length = text.size();
  const std::string_view unit = std::string_view(text).substr(length);
  const auto known = std::find_if(kUnits.begin(), kUnits.end(), [&](const auto& entry) { return entry.first == unit; });
  double number = 0;
  if (known == kUnits.end() || !absl::SimpleAtod(text.substr(0, length), &number)) return std::nullopt;
  const double rate = number * known->second;
  if (rate < kLeast || rate > kMost) return std::nullopt;
  return static_cast<std::uint64_t>(rate);
}

StatusOr<std::uint64_t> Rate(const std::map<std::string, std::string>& annotations, const char* name) {
  const auto found = annotations.find(name);
  if (found == annotations.end()) return 0;
  const auto rate = ParseRate(found->second);
  if (rate) return *rate;
  return absl::InvalidArgumentError(absl::StrCat("annotations[", name, "]: \"",
                                                 absl::CHexEscape(found->second.substr(0, 100)),
                                                 "\" is no quantity from 1k to 1P of bits a second"));
}

}  // namespace

StatusOr<Bandwidth> BandwidthOf(const std::map<std::string, std::string>& annotations) {
  Bandwidth bandwidth;
  HUSK_ASSIGN_OR_RETURN(bandwidth.ingress_bits_per_second, Rate(annotations, kIngress));
  HUSK_ASSIGN_OR_RETURN(bandwidth.egress_bits_per_second, Rate(annotations, kEgress));
  return bandwidth;
}

std::uint64_t BurstOf(std::uint64_t bits_per_second) {
  return std::clamp(bits_per_second, kLeastBurst, kMostBurst);
}

}  // namespace husk::sandbox
