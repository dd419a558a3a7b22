#include "sandbox/oci/seccomp_localhost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

StatusOr<Json> Parse(const std::string& text) {
  return ParseSeccompProfile(text, {"CAP_CHOWN", "CAP_SYS_ADMIN"});
}

std::string Refusal(const std::string& text) {
  const auto parsed = Parse(text);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(parsed.status().message());
}

TEST(SeccompLocalhost, TheOcisFormStaysAsItIs) {
  const std::string text = R"({
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "syscalls": [
      {"names": ["read", "_llseek"], "action": "SCMP_ACT_ALLOW"},
      {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
       "args": [{"index": 0, "value": 18446744073709551615, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]})";
  const auto parsed = Parse(text);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, Json::parse(text));
}

TEST(SeccompLocalhost, DockersConditionsAreDecided) {
  const auto parsed = Parse(R"({
    "defaultAction": "SCMP_ACT_KILL_PROCESS",
    "archMap": [{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
    "syscalls": [
      {"name": "read", "action": "SCMP_ACT_ALLOW", "comment": "old form"},
      {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": {"minKernel": "4.8"}},
      {"names": ["bdflush"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
      {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
      {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
      {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
      {"names": ["chown"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_BPF"], "arches": ["s390"]}},
      {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
      {"names": ["breakpoint"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}}]})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ((*parsed)["architectures"], Json({"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"}));
  Json names = Json::array();
  for (const Json& rule : (*parsed)["syscalls"]) names.push_back(rule["names"][0]);
  EXPECT_EQ(names, Json({"read", "ptrace", "mount", "chown", "arch_prctl"}));
  for (const Json& rule : (*parsed)["syscalls"]) EXPECT_FALSE(rule.contains("includes") || rule.contains("comment"));
}

TEST(SeccompLocalhost, WhatIsWrongIsNamed) {
  EXPECT_EQ(Refusal(""), "profile: is not a JSON object");
  EXPECT_EQ(Refusal("[]"), "profile: is not a JSON object");
  EXPECT_EQ(Refusal("{\"defaultAction\": \"SCMP_ACT_ALLOW\"} x"), "profile: is not a JSON object");
  EXPECT_EQ(Refusal("{}"), "profile.defaultAction: missing");
  EXPECT_EQ(Refusal(R"({"defaultAction": 1})"), "profile.defaultAction: not a string");
  EXPECT_EQ(Refusal(R"({"defaultAction": "ALLOW\u0007"})"), "profile.defaultAction: unknown action \"ALLOW\\x07\"");
  EXPECT_EQ(Refusal(R"({"sycalls": [], "defaultAction": "SCMP_ACT_ALLOW"})"), "profile: unknown member \"sycalls\"");
  EXPECT_THAT(Refusal(R"({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"})"),
              StartsWith("profile.listenerPath: "));
  EXPECT_THAT(Refusal(R"({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ARM"]})"),
              StartsWith("profile.architectures: "));
  EXPECT_THAT(Refusal(R"({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]})"), StartsWith("profile.flags: "));
  EXPECT_THAT(Refusal(R"({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1})"),
              StartsWith("profile.defaultErrnoRet: "));
  EXPECT_THAT(Refusal(std::string(100'000, '[')), StartsWith("profile: "));
}

TEST(SeccompLocalhost, WhatIsWrongInARuleIsNamed) {
  const auto rule = [](const std::string& text) {
    return Refusal(R"({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [)" + text + "]}");
  };
  EXPECT_EQ(rule("1"), "profile.syscalls[0]: not a JSON object");
  EXPECT_EQ(rule(R"({"action": "SCMP_ACT_ALLOW"})"), "profile.syscalls[0].names: names no system call");
  EXPECT_THAT(rule(R"({"names": ["READ"], "action": "SCMP_ACT_ALLOW"})"), StartsWith("profile.syscalls[0].names: "));
  EXPECT_THAT(rule(R"({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})"),
              StartsWith("profile.syscalls[0].action: SCMP_ACT_NOTIFY"));
  EXPECT_THAT(rule(R"({"names": ["read"], "action": "SCMP_ACT_ALLOW", "arg": []})"),
              HasSubstr("unknown member \"arg\""));
  EXPECT_THAT(rule(R"({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})"),
              StartsWith("profile.syscalls[0].errnoRet: "));
  const std::string begin = R"({"names": ["read"], "action": "SCMP_ACT_ALLOW", )";
  EXPECT_THAT(rule(begin + R"("args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]})"),
              StartsWith("profile.syscalls[0].args[0].index: "));
  EXPECT_THAT(rule(begin + R"("args": [{"index": 1, "value": -1, "op": "SCMP_CMP_EQ"}]})"),
              StartsWith("profile.syscalls[0].args[0].value: "));
  EXPECT_THAT(rule(begin + R"("args": [{"index": 1, "value": 1, "op": "EQ"}]})"),
              StartsWith("profile.syscalls[0].args[0].op: "));
  EXPECT_THAT(rule(begin + R"("includes": {"minKernel": "new"}})"),
              StartsWith("profile.syscalls[0].includes.minKernel: "));
  EXPECT_THAT(rule(begin + R"("excludes": {"cap": ["CAP_CHOWN"]}})"), StartsWith("profile.syscalls[0].excludes: "));
}

class SeccompFile : public testing::Test {
 protected:
  SeccompFile() { std::filesystem::create_directories(directory_); }
  ~SeccompFile() override { std::filesystem::remove_all(directory_); }
  static std::string Refusal(const std::string& path) {
    const auto read = ReadSeccompProfile(path);
    EXPECT_FALSE(read.ok()) << path;
    return std::string(read.status().message());
  }
  const std::filesystem::path directory_ =
      std::filesystem::path(testing::TempDir()) / ("husk-seccomp-" + std::to_string(getpid()));
};

TEST_F(SeccompFile, IsReadWholeThroughSymlinks) {
  std::ofstream(directory_ / "profile.json") << std::string(kMaximumSeccompProfile, ' ');
  std::filesystem::create_symlink("profile.json", directory_ / "link.json");
  const auto read = ReadSeccompProfile(directory_ / "link.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->size(), kMaximumSeccompProfile);
}

TEST_F(SeccompFile, WhatIsNoProfilesFileIsRefusedByItsPath) {
  std::ofstream(directory_ / "large.json") << std::string(kMaximumSeccompProfile + 1, ' ');
  EXPECT_THAT(Refusal(directory_ / "large.json"), HasSubstr("large.json\": is larger than"));
  ASSERT_EQ(mkfifo((directory_ / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(Refusal(directory_ / "fifo"), HasSubstr("fifo\": not a regular file"));
  EXPECT_THAT(Refusal(directory_), HasSubstr("not a regular file"));
  EXPECT_THAT(Refusal("/dev/zero"), HasSubstr("\"/dev/zero\": not a regular file"));
  EXPECT_THAT(Refusal(directory_ / "missing.json"), HasSubstr("missing.json"));
  EXPECT_THAT(Refusal("relative.json"), HasSubstr("not an absolute path"));
  EXPECT_THAT(Refusal("/a/../etc/passwd"), HasSubstr("has \"..\""));
  EXPECT_THAT(Refusal(std::string("/a\0z\x7f\xff", 6)), HasSubstr("\"/a\\x00z\\x7f\\xff\""));
}

}  // namespace
}  // namespace husk::sandbox
