#include "sandbox/oci/seccomp_profile.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <set>
#include <string_view>

#include "sandbox/oci/seccomp_groups.h"

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;

// Arguments that the kernel takes as 32 bits are compared as such: a caller can put anything into the other half.
constexpr std::uint64_t kLow32 = 0xffffffff;

// The argument's bits under `mask` are `value`.
Json Masked(unsigned index, std::uint64_t mask, std::uint64_t value) {
  return {{"index", index}, {"value", mask}, {"valueTwo", value}, {"op", "SCMP_CMP_MASKED_EQ"}};
}

Json Allowed(std::vector<std::string> names) {
  return {{"names", std::move(names)}, {"action", "SCMP_ACT_ALLOW"}};
}

Json Refused(std::vector<std::string> names) {
  return {{"names", std::move(names)}, {"action", "SCMP_ACT_ERRNO"}, {"errnoRet", EPERM}};
}

Json If(Json rule, Json argument) {
  rule["args"] = Json::array({std::move(argument)});
  return rule;
}

// clone makes processes and threads, but no namespaces. clone3 keeps its flags in memory, where no filter can see them:
// nobody but an administrator has it, and the C libraries turn to clone when they hear ENOSYS.
void AddClone(Json& rules) {
  // CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
  constexpr std::uint64_t kFlags[] = {0x00020000, 0x02000000, 0x04000000, 0x08000000,
                                      0x10000000, 0x20000000, 0x40000000};
  std::uint64_t all = 0;
  for (const std::uint64_t flag : kFlags) {
    all |= flag;
    rules.push_back(If(Refused({"clone"}), Masked(0, flag, flag)));
  }
  rules.push_back(If(Allowed({"clone"}), Masked(0, all, 0)));
}

// Linux, 32-bit Linux, both with the old kernel's version number, and the question for the present one. The others have
// bugs of long ago to offer.
void AddPersonality(Json& rules) {
  for (const std::uint64_t value : {0x0U, 0x8U, 0x20000U, 0x20008U, 0xffffffffU}) {
    rules.push_back(If(Allowed({"personality"}), Masked(0, kLow32, value)));
  }
}

// Every address family but AF_ALG (38), the kernel's ciphers, and AF_VSOCK (40), a way out of the VM. Those fail with
// the default: libseccomp takes no rules of different actions whose masks overlap, so nothing here can say EPERM.
void AddSocket(Json& rules) {
  struct Families {
    std::uint64_t mask;
    std::uint64_t value;
  };
  // 0-31, 32-35, 36-37, 39, 41, 42-43, 44-47, 48-63: a comparison for a power of two of them.
  constexpr Families kFamilies[] = {{kLow32 & ~31U, 0}, {kLow32 & ~3U, 32}, {kLow32 & ~1U, 36}, {kLow32, 39},
                                    {kLow32, 41},       {kLow32 & ~1U, 42}, {kLow32 & ~3U, 44}, {kLow32 & ~15U, 48}};
  for (const auto& [mask, value] : kFamilies) rules.push_back(If(Allowed({"socket"}), Masked(0, mask, value)));
}

}  // namespace

Json DefaultSeccompProfile(const std::vector<std::string>& capabilities) {
  const auto has = [&](std::string_view name) {
    return std::find(capabilities.begin(), capabilities.end(), name) != capabilities.end();
  };
  std::set<std::string> allowed(SeccompAllowed().begin(), SeccompAllowed().end());
  std::set<std::string> refused(SeccompRefused().begin(), SeccompRefused().end());
  for (const auto& [capability, names] : SeccompOfCapabilities()) {
    (has(capability) ? allowed : refused).insert(names.begin(), names.end());
  }
  // What one capability keeps, another may give.
  for (const std::string& name : allowed) refused.erase(name);

  Json rules = Json::array();
  if (has("CAP_SYS_ADMIN")) {
    allowed.insert({"clone", "clone3"});
  } else {
    AddClone(rules);
  }
  AddPersonality(rules);
  AddSocket(rules);
  rules.push_back(Allowed({allowed.begin(), allowed.end()}));
  rules.push_back(Refused({refused.begin(), refused.end()}));
  return {{"defaultAction", "SCMP_ACT_ERRNO"},
          {"defaultErrnoRet", ENOSYS},
          {"architectures", {"SCMP_ARCH_X86_64", "SCMP_ARCH_X86"}},
          {"syscalls", std::move(rules)}};
}

}  // namespace husk::sandbox
