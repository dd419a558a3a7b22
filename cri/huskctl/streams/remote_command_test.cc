#include "cri/huskctl/streams/remote_command.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "agent/common/unique_fd.h"
#include "cri/huskctl/streams/fake_server_for_test.h"

namespace husk::huskctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Socket = FakeServer::Socket;

constexpr char kSuccess[] = R"({"metadata":{},"status":"Success"})";
constexpr char kFortyTwo[] =
    R"({"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"42"}]}})";
constexpr auto kNormal = boost::beast::websocket::close_code::normal;

const std::string kInputEnds("\xff\x00", 2);

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    reader.Reset(ends[0]);
    writer.Reset(ends[1]);
  }
  std::string ReadToEnd() {
    writer.Reset();
    std::string all;
    std::array<char, 65536> bytes{};
    for (ssize_t count; (count = read(reader.get(), bytes.data(), bytes.size())) > 0;) {
      all.append(bytes.data(), static_cast<std::size_t>(count));
    }
    return all;
  }
  void Write(const std::string& bytes) const {
    EXPECT_EQ(write(writer.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  UniqueFd reader;
  UniqueFd writer;
};

void Close(Socket& socket) {
  socket.close(kNormal);
}

void Succeed(Socket& socket) {
  SendTo(socket, 3, kSuccess);
  Close(socket);
}

class RemoteCommandTest : public ::testing::Test {
 protected:
  StatusOr<RemoteCommandEnd> RunAt(const std::string& url) {
    options_.url = url;
    options_.output = output_.writer.get();
    options_.error_output = error_output_.writer.get();
    return RunRemoteCommand(options_);
  }
  template <typename Server>
  StatusOr<RemoteCommandEnd> Run(Server& server) {
    auto end = RunAt(server.url());
    server.Finish();
    return end;
  }
  static std::string Message(const StatusOr<RemoteCommandEnd>& end) { return std::string(end.status().message()); }
  RemoteCommandOptions options_;
  Pipe output_;
  Pipe error_output_;
};

TEST_F(RemoteCommandTest, OutputsStayApartAndTheExitCodeComes) {
  FakeServer server([](Socket& socket) {
    SendTo(socket, 1, "");
    SendTo(socket, 1, "out ");
    SendTo(socket, 2, "error\n");
    SendTo(socket, 1, std::string("put\n\0", 5));
    SendTo(socket, '\xff', std::string(1, '\1'));
    SendTo(socket, 3, kFortyTwo);
    Close(socket);
  });
  const auto end = Run(server);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->exit_code, 42);
  EXPECT_FALSE(end->detached);
  EXPECT_EQ(output_.ReadToEnd(), std::string("out put\n\0", 9));
  EXPECT_EQ(error_output_.ReadToEnd(), "error\n");
}

TEST_F(RemoteCommandTest, InputArrivesWholeAndItsEndIsAHalfClose) {
  std::string received;
  FakeServer server([&](Socket& socket) {
    for (std::string message; (message = ReceiveFrom(socket)) != kInputEnds;) {
      EXPECT_EQ(message.front(), '\0');
      received.append(message, 1);
    }
    SendTo(socket, 1, "got it");
    Succeed(socket);
  });
  std::string sent;
  for (int i = 0; i < 500'000; ++i) sent += std::to_string(i);
  Pipe input;
  std::thread writer([&] {
    std::string_view left = sent;
    while (!left.empty()) {
      const ssize_t count = write(input.writer.get(), left.data(), left.size());
      ASSERT_GT(count, 0);
      left.remove_prefix(static_cast<std::size_t>(count));
    }
    input.writer.Reset();
  });
  options_.standard_input = true;
  options_.input = input.reader.get();
  const auto end = Run(server);
  writer.join();
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(received, sent);
  EXPECT_EQ(output_.ReadToEnd(), "got it");
}

TEST_F(RemoteCommandTest, InputThatNeverComesHoldsNothingUp) {
  FakeServer server(Succeed);
  const Pipe input;
  options_.standard_input = true;
  options_.input = input.reader.get();
  EXPECT_TRUE(Run(server).ok());
}

TEST_F(RemoteCommandTest, InputThatCannotBeReadIsAnError) {
  FakeServer server([](Socket& socket) { ReceiveFrom(socket); });
  const UniqueFd directory(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  options_.standard_input = true;
  options_.input = directory.get();
  EXPECT_THAT(Message(Run(server)), HasSubstr("read standard input: Is a directory"));
}

TEST_F(RemoteCommandTest, AServerThatVanishesIsAnError) {
  FakeServer server([](Socket& socket) { SendTo(socket, 1, "begun"); });
  const auto end = Run(server);
  EXPECT_EQ(end.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(end), HasSubstr("is lost"));
  EXPECT_EQ(output_.ReadToEnd(), "begun");
}

TEST_F(RemoteCommandTest, AnEndWithoutAStatusIsAnError) {
  FakeServer server(Close);
  EXPECT_THAT(Message(Run(server)), HasSubstr("without saying how the command ended"));
}

TEST_F(RemoteCommandTest, OnceTheStatusIsThereTheEndMayBeRude) {
  FakeServer server([](Socket& socket) { SendTo(socket, 3, kFortyTwo); });
  EXPECT_EQ(Run(server).value().exit_code, 42);
}

TEST_F(RemoteCommandTest, WhatTheServerSaysWhenItRefusesIsShown) {
  FakeServer server(Close, "v5.channel.k8s.io", nullptr, "there is no such stream\n");
  EXPECT_THAT(Message(Run(server)), testing::AllOf(HasSubstr("404"), HasSubstr("there is no such stream")));
}

TEST_F(RemoteCommandTest, WhatDoesNotSpeakTheProtocolIsRefused) {
  for (const char* protocol : {"v4.channel.k8s.io", "channel.k8s.io", ""}) {
    FakeServer server(Close, protocol);
    EXPECT_THAT(Message(Run(server)), HasSubstr("which nobody asked for")) << protocol;
  }
  FakeServer server([](Socket& socket) { SendTo(socket, 7, "what?"); });
  EXPECT_THAT(Message(Run(server)), HasSubstr("channel 7"));
}

TEST_F(RemoteCommandTest, NobodyThereIsAnError) {
  std::string url;
  {
    url = FakeServer(Close).url();
  }
  EXPECT_THAT(Message(RunAt(url)), HasSubstr("nobody answers"));
}

TEST_F(RemoteCommandTest, PingsKeepAnIdleSessionUp) {
  std::atomic<int> pings = 0;
  FakeServer server([&](Socket& socket) {
    socket.control_callback([&](boost::beast::websocket::frame_type kind, boost::beast::string_view) {
      if (kind == boost::beast::websocket::frame_type::ping) ++pings;
    });
    ReceiveFrom(socket);
    Succeed(socket);
  });
  options_.ping_interval = std::chrono::milliseconds(10);
  const Pipe input;
  options_.standard_input = true;
  options_.input = input.reader.get();
  std::thread typist([&] {
    while (pings < 3) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    input.Write("enough");
  });
  EXPECT_TRUE(Run(server).ok());
  typist.join();
  EXPECT_GE(pings, 3);
}

// ---- with a terminal ------------------------------------------------------------------------------------------------

class RemoteTerminalTest : public RemoteCommandTest {
 protected:
  RemoteTerminalTest() {
    int master = -1;
    int slave = -1;
    EXPECT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
    master_.Reset(master);
    slave_.Reset(slave);
    Resize(80, 24);
    options_.standard_input = true;
    options_.tty = true;
    options_.input = slave_.get();
  }
  void Resize(std::uint16_t width, std::uint16_t height) const {
    const winsize size{.ws_row = height, .ws_col = width, .ws_xpixel = 0, .ws_ypixel = 0};
    EXPECT_EQ(ioctl(master_.get(), TIOCSWINSZ, &size), 0);
  }
  void Type(const std::string& keys) const {
    EXPECT_EQ(write(master_.get(), keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  [[nodiscard]] bool IsRaw() const {
    termios mode{};
    EXPECT_EQ(tcgetattr(slave_.get(), &mode), 0);
    return (mode.c_lflag & (ICANON | ECHO | ISIG)) == 0;
  }
  UniqueFd master_;
  UniqueFd slave_;
};

TEST_F(RemoteTerminalTest, IsRawMeanwhileAndItsSizeFollows) {
  std::vector<std::string> received;
  bool raw = false;
  FakeServer server([&](Socket& socket) {
    received.push_back(ReceiveFrom(socket));
    raw = IsRaw();
    Resize(132, 43);
    kill(getpid(), SIGWINCH);
    received.push_back(ReceiveFrom(socket));
    Type("\x03\x10\x11");  // a running command has no keys to leave it
    std::string keys;
    while (keys.size() < 3) keys.append(ReceiveFrom(socket), 1);
    received.push_back(keys);
    SendTo(socket, 3, kFortyTwo);
    Close(socket);
  });
  const auto end = Run(server);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->exit_code, 42);
  EXPECT_THAT(received,
              ElementsAre("\4{\"Height\":24,\"Width\":80}", "\4{\"Height\":43,\"Width\":132}", "\x03\x10\x11"));
  EXPECT_TRUE(raw);
  EXPECT_FALSE(IsRaw());
}

TEST_F(RemoteTerminalTest, IsAsBeforeWhenTheServerVanishes) {
  bool raw = false;
  FakeServer server([&](Socket& socket) {
    ReceiveFrom(socket);
    raw = IsRaw();
  });
  EXPECT_EQ(Run(server).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(raw);
  EXPECT_FALSE(IsRaw());
}

TEST_F(RemoteTerminalTest, WhatIsAttachedToRedrawsAndCanBeLeft) {
  std::vector<std::string> received;
  std::atomic<bool> said_goodbye = false;
  FakeServer server([&](Socket& socket) {
    received.push_back(ReceiveFrom(socket));
    received.push_back(ReceiveFrom(socket));
    Type("a\x10\x11never");
    received.push_back(ReceiveFrom(socket));
    try {
      ReceiveFrom(socket);
    } catch (const boost::system::system_error& error) {
      said_goodbye = error.code() == boost::beast::websocket::error::closed;
    }
  });
  options_.attached = true;
  const auto end = Run(server);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_TRUE(end->detached);
  EXPECT_THAT(received,
              ElementsAre("\4{\"Height\":25,\"Width\":81}", "\4{\"Height\":24,\"Width\":80}", std::string("\0a", 2)));
  EXPECT_TRUE(said_goodbye);
  EXPECT_FALSE(IsRaw());
}

TEST_F(RemoteTerminalTest, AHeldKeyDoesNotHoldTheInput) {
  std::string keys;
  FakeServer server([&](Socket& socket) {
    ReceiveFrom(socket);
    ReceiveFrom(socket);
    Type("\x10");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // a piece of its own, most likely
    Type("x");
    while (keys.size() < 2) keys.append(ReceiveFrom(socket), 1);
    Succeed(socket);
  });
  options_.attached = true;
  ASSERT_TRUE(Run(server).ok());
  EXPECT_EQ(keys, "\x10x");
}

TEST_F(RemoteTerminalTest, NeedsATerminal) {
  const Pipe input;
  options_.input = input.reader.get();
  const auto end = RunAt("http://127.0.0.1:1/exec/x");
  EXPECT_EQ(end.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(end), HasSubstr("no terminal"));
}

// ---- with TLS -------------------------------------------------------------------------------------------------------

class RemoteTlsTest : public RemoteCommandTest {
 protected:
  using TlsServer = FakeServerOver<TlsTestStream>;
  RemoteTlsTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-tls-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  ~RemoteTlsTest() override { std::filesystem::remove_all(directory_); }
  static void Talk(TlsServer::Socket& socket) {
    SendTo(socket, 1, ReceiveFrom(socket).substr(1));
    SendTo(socket, 3, kFortyTwo);
    socket.close(kNormal);
  }
  std::filesystem::path directory_;
  boost::asio::ssl::context tls_{boost::asio::ssl::context::tls_server};
};

TEST_F(RemoteTlsTest, StreamsGoOverTls) {
  UseNewCertificate(tls_, directory_ / "ca.pem", true);
  TlsServer server(Talk, "v5.channel.k8s.io", &tls_);
  Pipe input;
  input.Write("through TLS");
  options_.standard_input = true;
  options_.input = input.reader.get();
  options_.certificate_authority = directory_ / "ca.pem";
  const auto end = Run(server);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->exit_code, 42);
  EXPECT_EQ(output_.ReadToEnd(), "through TLS");
}

TEST_F(RemoteTlsTest, ACertificateThatIsNotTrustedIsRefused) {
  UseNewCertificate(tls_, directory_ / "ca.pem", true);
  TlsServer server(Talk, "v5.channel.k8s.io", &tls_);
  const auto end = Run(server);
  EXPECT_EQ(end.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(Message(end),
              testing::AllOf(HasSubstr("is not trusted"), HasSubstr("self"), HasSubstr("--streaming-ca")));
}

TEST_F(RemoteTlsTest, ACertificateForAnotherNameIsRefused) {
  UseNewCertificate(tls_, directory_ / "ca.pem", false);
  TlsServer server(Talk, "v5.channel.k8s.io", &tls_);
  options_.certificate_authority = directory_ / "ca.pem";
  EXPECT_THAT(Message(Run(server)), testing::AllOf(HasSubstr("is not trusted"), HasSubstr("mismatch")));
}

TEST_F(RemoteTlsTest, AFileThatIsNoCaIsRefused) {
  options_.certificate_authority = directory_ / "missing.pem";
  EXPECT_THAT(Message(RunAt("https://127.0.0.1:1/exec/x")),
              testing::AllOf(HasSubstr("--streaming-ca"), HasSubstr("missing.pem")));
}

}  // namespace
}  // namespace husk::huskctl
