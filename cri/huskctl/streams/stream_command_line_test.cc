#include "cri/huskctl/streams/stream_command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

namespace husk::huskctl {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class StreamCommandLineTest : public ::testing::Test {
 protected:
  // Whether it can be understood.
  bool Parse(std::vector<std::string> words) {
    CLI::App app;
    app.require_subcommand(1);
    AddStreamCommands(&app, &arguments_, &action_);
    try {
      app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
    } catch (const CLI::ParseError&) {
      return false;
    }
    return action_ != nullptr;
  }
  StreamArguments arguments_;
  std::function<StatusOr<int>(Client&)> action_;
};

TEST_F(StreamCommandLineTest, ExecWithATerminal) {
  ASSERT_TRUE(Parse({"exec", "-it", "web/main", "--", "vi", "-R", "/etc/motd"}));
  EXPECT_TRUE(arguments_.exec.standard_input);
  EXPECT_TRUE(arguments_.exec.tty);
  EXPECT_EQ(arguments_.exec.target, "web/main");
  EXPECT_THAT(arguments_.exec.command, ElementsAre("vi", "-R", "/etc/motd"));
  EXPECT_FALSE(arguments_.exec.timeout);
}

TEST_F(StreamCommandLineTest, PlainExec) {
  ASSERT_TRUE(Parse({"exec", "main", "ls"}));
  EXPECT_FALSE(arguments_.exec.standard_input);
  EXPECT_FALSE(arguments_.exec.tty);
  EXPECT_THAT(arguments_.exec.command, ElementsAre("ls"));
}

TEST_F(StreamCommandLineTest, ATimeoutIsNotForStreams) {
  ASSERT_TRUE(Parse({"exec", "--timeout", "5", "main", "--", "sleep", "9"}));
  EXPECT_EQ(arguments_.exec.timeout, std::chrono::seconds(5));
  EXPECT_FALSE(Parse({"exec", "--timeout", "5", "-i", "main", "--", "cat"}));
  EXPECT_FALSE(Parse({"exec", "-t", "--timeout", "5", "main", "--", "cat"}));
  EXPECT_FALSE(Parse({"exec", "--timeout", "0", "main", "--", "cat"}));
}

TEST_F(StreamCommandLineTest, Attach) {
  ASSERT_TRUE(Parse({"attach", "-i", "-t", "--streaming-ca", "/ca.pem", "main"}));
  EXPECT_EQ(arguments_.attach.target, "main");
  EXPECT_TRUE(arguments_.attach.standard_input && arguments_.attach.tty);
  EXPECT_EQ(arguments_.attach.certificate_authority, "/ca.pem");
}

TEST_F(StreamCommandLineTest, PortForward) {
  ASSERT_TRUE(Parse({"port-forward", "web", "8080:80", ":443"}));
  EXPECT_EQ(arguments_.port_forward.pod, "web");
  EXPECT_THAT(arguments_.port_forward.ports, ElementsAre("8080:80", ":443"));
  EXPECT_THAT(arguments_.port_forward.addresses, IsEmpty());
  ASSERT_TRUE(Parse({"port-forward", "--address", "10.0.0.1,::1", "web", "80"}));
  EXPECT_THAT(arguments_.port_forward.addresses, ElementsAre("10.0.0.1", "::1"));
  EXPECT_EQ(arguments_.port_forward.pod, "web");
}

TEST_F(StreamCommandLineTest, WhatIsMissingIsAskedFor) {
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"exec"}, {"exec", "main"}, {"exec", "main", "--"}, {"attach"}, {"port-forward"}, {"port-forward", "web"}}) {
    EXPECT_FALSE(Parse(words)) << words.back();
  }
}

}  // namespace
}  // namespace husk::huskctl
