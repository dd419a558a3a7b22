#include "sandbox/signals.h"

#include <map>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace husk::sandbox {
namespace {

constexpr std::uint32_t kFirstRealTime = 34;  // as the C libraries count: two are taken by threads
constexpr std::uint32_t kLast = 64;

const std::map<std::string, std::uint32_t>& Names() {
  static const std::map<std::string, std::uint32_t> names = {
      {"HUP", 1},   {"INT", 2},    {"QUIT", 3},    {"ILL", 4},   {"TRAP", 5},  {"ABRT", 6},  {"IOT", 6},
      {"BUS", 7},   {"FPE", 8},    {"KILL", 9},    {"USR1", 10}, {"SEGV", 11}, {"USR2", 12}, {"PIPE", 13},
      {"ALRM", 14}, {"TERM", 15},  {"STKFLT", 16}, {"CHLD", 17}, {"CLD", 17},  {"CONT", 18}, {"STOP", 19},
      {"TSTP", 20}, {"TTIN", 21},  {"TTOU", 22},   {"URG", 23},  {"XCPU", 24}, {"XFSZ", 25}, {"VTALRM", 26},
      {"PROF", 27}, {"WINCH", 28}, {"IO", 29},     {"POLL", 29}, {"PWR", 30},  {"SYS", 31}};
  return names;
}

}  // namespace

StatusOr<std::uint32_t> ParseSignal(std::string_view name) {
  Status bad = absl::InvalidArgumentError(
      absl::StrCat("no such signal: \"", absl::CHexEscape(absl::string_view(name.data(), name.size())), "\""));
  std::uint32_t number = 0;
  if (absl::SimpleAtoi(absl::string_view(name.data(), name.size()), &number)) {
    return number >= 1 && number <= kLast ? StatusOr<std::uint32_t>(number) : bad;
  }
  const std::string upper = absl::AsciiStrToUpper(absl::string_view(name.data(), name.size()));
  const absl::string_view word = absl::StripPrefix(upper, "SIG");
  if (const auto found = Names().find(std::string(word)); found != Names().end()) return found->second;
  if (word == "RTMIN") return kFirstRealTime;
  if (word == "RTMAX") return kLast;
  absl::string_view offset = word;
  if (absl::ConsumePrefix(&offset, "RTMIN+") && absl::SimpleAtoi(offset, &number) && number <= kLast - kFirstRealTime) {
    return kFirstRealTime + number;
  }
  offset = word;
  if (absl::ConsumePrefix(&offset, "RTMAX-") && absl::SimpleAtoi(offset, &number) && number <= kLast - kFirstRealTime) {
    return kLast - number;
  }
  return bad;
}

}  // namespace husk::sandbox
