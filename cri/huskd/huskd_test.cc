#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cri/huskd/command_line.h"
#include "cri/huskd/instance_lock.h"
#include "cri/huskd/logging.h"

namespace husk::cri {
namespace {

using testing::HasSubstr;

TEST(CommandLine, OptionsWinOverTheFile) {
  const std::string file = testing::TempDir() + "husk-command-line.yaml";
  std::ofstream(file) << "version: 1\nroot: /from-file\nlog: {level: error}\nvm: {default_vcpus: 3}\n";
  const auto parsed = ParseCommandLine({"--config", file, "--root", "/given", "--state=/s", "--listen",
                                        "unix:///x.sock", "--log-level", "debug", "--check-config"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->check_config);
  const auto config = EffectiveConfig(*parsed);
  std::filesystem::remove(file);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->root, "/given");
  EXPECT_EQ(config->state, "/s");
  EXPECT_EQ(config->listen, "unix:///x.sock");
  EXPECT_EQ(config->log_level, "debug");
  EXPECT_EQ(config->vm.default_vcpus, 3U);
}

TEST(CommandLine, MistakesAreNamed) {
  for (const auto& [arguments, words] :
       std::vector<std::pair<std::vector<std::string>, std::string>>{{{"--rot", "/x"}, "--rot"},
                                                                     {{"--root"}, "--root"},
                                                                     {{"extra"}, "extra"},
                                                                     {{"--log-level", "loud"}, "loud"}}) {
    const auto parsed = ParseCommandLine(arguments);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(words));
  }
  const auto bad_value = [](const std::vector<std::string>& arguments) {
    return std::string(EffectiveConfig(*ParseCommandLine(arguments)).status().message());
  };
  EXPECT_THAT(bad_value({"--root", "relative"}), HasSubstr("--root: expected an absolute path"));
  EXPECT_THAT(bad_value({"--listen", "tcp://1.2.3.4:5"}), HasSubstr("unix:///PATH"));
  EXPECT_THAT(bad_value({"--config", "/nonexistent/husk.yaml"}), HasSubstr("/nonexistent/husk.yaml"));
  EXPECT_THAT(bad_value({"--root", "/a", "--state", "/a"}), HasSubstr("different directories"));
}

TEST(CommandLine, HelpAndVersionArePrinted) {
  EXPECT_THAT(*ParseCommandLine({"--help"})->print, HasSubstr("--list-fault-points"));
  EXPECT_THAT(*ParseCommandLine({"--version"})->print, testing::StartsWith("huskd "));
  EXPECT_TRUE(ParseCommandLine({"--list-fault-points"})->list_fault_points);
}

TEST(InstanceLock, IsTakenOnce) {
  std::string directory = std::filesystem::temp_directory_path() / "husk-lock-XXXXXX";
  ASSERT_NE(mkdtemp(directory.data()), nullptr);
  {
    const auto first = InstanceLock::Take(directory, "--root");
    ASSERT_TRUE(first.ok()) << first.status();
    const auto second = InstanceLock::Take(directory, "--root");
    EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(second.status().message()), HasSubstr(std::to_string(getpid())));
    EXPECT_THAT(std::string(second.status().message()), HasSubstr("--root"));
  }
  EXPECT_TRUE(InstanceLock::Take(directory, "--root").ok());
  std::filesystem::remove_all(directory);
}

std::string Formatted(bool journal, spdlog::level::level_enum level, const std::string& text) {
  spdlog::memory_buf_t out;
  NewLogFormatter(journal)->format(spdlog::details::log_msg("huskd", level, text), out);
  return {out.data(), out.size()};
}

TEST(Logging, JournalLinesBeginWithTheirPriority) {
  EXPECT_EQ(Formatted(true, spdlog::level::warn, "pod=1"), "<4>pod=1\n");
  EXPECT_EQ(Formatted(true, spdlog::level::err, "x"), "<3>x\n");
  EXPECT_EQ(Formatted(true, spdlog::level::info, "x"), "<6>x\n");
  EXPECT_EQ(Formatted(true, spdlog::level::debug, "x"), "<7>x\n");
  EXPECT_THAT(Formatted(false, spdlog::level::info, "x"), testing::MatchesRegex("....-..-..T.*info x\n"));
}

TEST(Logging, ForeignBytesCannotForgeALine) {
  EXPECT_EQ(Formatted(true, spdlog::level::info, "a\n<0>forged\x1b[2J"), "<6>a\\x0a<0>forged\\x1b[2J\n");
}

}  // namespace
}  // namespace husk::cri
