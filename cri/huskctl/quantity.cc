#include "cri/huskctl/quantity.h"

#include <cmath>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace husk::huskctl {

namespace {

StatusOr<long double> Parse(const std::string& text) {
  static const std::map<std::string, long double> kSuffixes = {
      {"", 1},      {"m", 0.001L}, {"k", 1e3L},         {"M", 1e6L},           {"G", 1e9L},
      {"T", 1e12L}, {"Ki", 1024},  {"Mi", 1024 * 1024}, {"Gi", 1073741824.0L}, {"Ti", 1099511627776.0L}};
  const std::size_t digits = text.find_first_not_of("0123456789.");
  const auto suffix = kSuffixes.find(digits == std::string::npos ? "" : text.substr(digits));
  double number = 0;
  if (suffix == kSuffixes.end() || !absl::SimpleAtod(text.substr(0, digits), &number)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no quantity such as 500m, 1.5 or 256Mi"));
  }
  return static_cast<long double>(number) * suffix->second;
}

StatusOr<std::int64_t> RoundedUp(const std::string& text, long double factor) {
  HUSK_ASSIGN_OR_RETURN(const long double value, Parse(text));
  // What 0.001 and decimal fractions lose in binary must not round up to the next unit.
  constexpr long double kNoise = 1e-6L;
  const long double rounded = std::ceil(value * factor - kNoise);
  constexpr long double kMost = 9e18L;
  if (rounded > kMost) return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is too large"));
  return static_cast<std::int64_t>(rounded);
}

}  // namespace

StatusOr<std::int64_t> ParseMilli(const std::string& text) {
  return RoundedUp(text, 1000);
}

StatusOr<std::int64_t> ParseUnits(const std::string& text) {
  return RoundedUp(text, 1);
}

}  // namespace husk::huskctl
