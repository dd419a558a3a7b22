#include "cri/huskctl/streams/terminal.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>

#include "agent/common/unique_fd.h"

namespace husk::huskctl {
namespace {

class TerminalTest : public ::testing::Test {
 protected:
  TerminalTest() {
    int master = -1;
    int slave = -1;
    EXPECT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
    master_.Reset(master);
    slave_.Reset(slave);
  }
  // As it is made: canonical, with echo.
  [[nodiscard]] bool IsRaw() const {
    termios mode{};
    EXPECT_EQ(tcgetattr(slave_.get(), &mode), 0);
    return (mode.c_lflag & (ICANON | ECHO | ISIG)) == 0;
  }
  UniqueFd master_;
  UniqueFd slave_;
};

TEST_F(TerminalTest, IsRawUntilTheEnd) {
  EXPECT_FALSE(IsRaw());
  {
    const auto terminal = RawTerminal::Enter(slave_.get());
    ASSERT_TRUE(terminal.ok());
    EXPECT_TRUE(IsRaw());
    EXPECT_FALSE(RawTerminal::Enter(slave_.get()).ok());
    EXPECT_TRUE(IsRaw());
  }
  EXPECT_FALSE(IsRaw());
  EXPECT_TRUE(RawTerminal::Enter(slave_.get()).ok());
}

TEST_F(TerminalTest, ASignalThatEndsTheProcessRestoresIt) {
  for (const int signal : {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM}) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (const int each : {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM}) std::signal(each, SIG_DFL);
      const auto terminal = RawTerminal::Enter(slave_.get());
      if (!terminal.ok() || !IsRaw()) _exit(99);
      raise(signal);
      _exit(98);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << signal << ": " << status;
    EXPECT_EQ(WTERMSIG(status), signal);
    EXPECT_FALSE(IsRaw()) << signal;
  }
}

TEST_F(TerminalTest, AnIgnoredSignalStaysIgnored) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::signal(SIGHUP, SIG_IGN);
    const auto terminal = RawTerminal::Enter(slave_.get());
    raise(SIGHUP);
    _exit(terminal.ok() && IsRaw() ? 7 : 8);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
}

TEST_F(TerminalTest, SizesAreThoseOfTheTerminal) {
  EXPECT_FALSE(SizeOfTerminal(slave_.get()));  // a new one has none
  const winsize size{.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(ioctl(master_.get(), TIOCSWINSZ, &size), 0);
  const auto seen = SizeOfTerminal(slave_.get());
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->width, 80);
  EXPECT_EQ(seen->height, 24);
}

TEST(NoTerminalTest, IsRefused) {
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto terminal = RawTerminal::Enter(null.get());
  EXPECT_EQ(terminal.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(SizeOfTerminal(null.get()));
}

}  // namespace
}  // namespace husk::huskctl
