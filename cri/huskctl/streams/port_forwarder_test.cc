#include "cri/huskctl/streams/port_forwarder.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>

#include "absl/strings/numbers.h"
#include "agent/common/unique_fd.h"
#include "cri/huskctl/streams/fake_server_for_test.h"

namespace husk::huskctl {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::SizeIs;

using Socket = FakeServer::Socket;

constexpr std::uint16_t kRemote = 0x1234;
const std::string kPort("\x34\x12", 2);
const std::string kInputEnds("\xff\x00", 2);
constexpr auto kNormal = boost::beast::websocket::close_code::normal;

// A client at 127.0.0.1.
class LocalClient {
 public:
  explicit LocalClient(std::uint16_t port) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(socket_.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  void Send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t count = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      ASSERT_GT(count, 0);
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
  }
  [[nodiscard]] char ReadOne() const {
    char byte = '\0';
    EXPECT_EQ(recv(socket_.get(), &byte, 1, 0), 1);
    return byte;
  }
  void EndSending() const { shutdown(socket_.get(), SHUT_WR); }
  // Until the other side ends; "reset" at the end if it was rude.
  [[nodiscard]] std::string ReadToEnd() const {
    std::string all;
    std::array<char, 65536> bytes{};
    for (;;) {
      const ssize_t count = recv(socket_.get(), bytes.data(), bytes.size(), 0);
      if (count < 0) return all + "reset";
      if (count == 0) return all;
      all.append(bytes.data(), static_cast<std::size_t>(count));
    }
  }

 private:
  UniqueFd socket_;
};

// What the server of a pod that echoes sends: the input back, its end after the input's.
void Echo(Socket& socket) {
  SendTo(socket, 0, kPort);
  SendTo(socket, 1, kPort);
  for (std::string message; (message = ReceiveFrom(socket)) != kInputEnds;) {
    EXPECT_EQ(message.front(), '\0');
    SendTo(socket, 0, message.substr(1));
  }
  SendTo(socket, '\xff', std::string(1, '\0'));
  socket.close(kNormal);
}

class PortForwarderTest : public ::testing::Test {
 protected:
  ~PortForwarderTest() override { Stop(); }
  void Start(FakeServer& server) {
    Start([url = server.url()](std::uint16_t remote) -> StatusOr<std::string> {
      EXPECT_EQ(remote, kRemote);
      return url;
    });
  }
  void Start(std::function<StatusOr<std::string>(std::uint16_t)> url_for) {
    auto forwarder =
        PortForwarder::Listen({.ports = {{.local = 0, .remote = kRemote}}},
                              {.url_for = std::move(url_for),
                               .say = [this](const std::string& line) { said_.push_back(line); },
                               .complain = [this](const std::string& line) { complaints_.push_back(line); }});
    ASSERT_TRUE(forwarder.ok()) << forwarder.status();
    forwarder_ = *std::move(forwarder);
    const std::string place = forwarder_->places().at(0);
    EXPECT_THAT(place, MatchesRegex("127\\.0\\.0\\.1:[0-9]+ -> 4660"));
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(place.substr(10, place.find(' ') - 10), &port));
    port_ = static_cast<std::uint16_t>(port);
    thread_ = std::thread([this] { forwarder_->Run(); });
  }
  // After it the test may look at what was said.
  void Stop() {
    if (!thread_.joinable()) return;
    forwarder_->Stop();
    thread_.join();
    forwarder_.reset();
  }
  std::unique_ptr<PortForwarder> forwarder_;
  std::uint16_t port_ = 0;
  std::vector<std::string> said_;
  std::vector<std::string> complaints_;
  std::thread thread_;
};

TEST_F(PortForwarderTest, BytesGoBothWaysAndEachWayEndsForItself) {
  FakeServer server(Echo);
  Start(server);
  std::string sent;
  for (int i = 0; i < 500'000; ++i) sent += std::to_string(i);
  const LocalClient client(port_);
  std::thread sender([&] {
    client.Send(sent);
    client.EndSending();
  });
  EXPECT_EQ(client.ReadToEnd(), sent);
  sender.join();
  Stop();
  EXPECT_THAT(said_, ElementsAre(absl::StrCat("Handling connection for ", port_)));
  EXPECT_THAT(complaints_, ElementsAre());
}

TEST_F(PortForwarderTest, ManyAtOnce) {
  FakeServer server(Echo);
  Start(server);
  std::vector<std::unique_ptr<LocalClient>> clients;
  for (int i = 0; i < 50; ++i) clients.push_back(std::make_unique<LocalClient>(port_));
  for (int i = 0; i < 50; ++i) clients[static_cast<std::size_t>(i)]->Send(absl::StrCat("number ", i));
  for (int i = 49; i >= 0; --i) {
    clients[static_cast<std::size_t>(i)]->EndSending();
    EXPECT_EQ(clients[static_cast<std::size_t>(i)]->ReadToEnd(), absl::StrCat("number ", i));
  }
  Stop();
  EXPECT_THAT(said_, SizeIs(50));
}

TEST_F(PortForwarderTest, ThePodMayEndFirstAndStillBeSentTo) {
  std::string received;
  FakeServer server([&](Socket& socket) {
    SendTo(socket, 0, kPort + "bye");
    SendTo(socket, '\xff', std::string(1, '\0'));
    for (std::string message; (message = ReceiveFrom(socket)) != kInputEnds;) received.append(message, 1);
    socket.close(kNormal);
  });
  Start(server);
  const LocalClient client(port_);
  EXPECT_EQ(client.ReadToEnd(), "bye");
  client.Send("last words");
  client.EndSending();
  server.Finish();
  EXPECT_EQ(received, "last words");
}

TEST_F(PortForwarderTest, WithoutHalfCloseTheAnswerComesAllTheSame) {
  FakeServer server(
      [](Socket& socket) {
        SendTo(socket, 0, kPort);
        SendTo(socket, 1, kPort);
        EXPECT_EQ(ReceiveFrom(socket), std::string("\0question", 9));
        SendTo(socket, 0, "answer");
        socket.close(kNormal);
      },
      "v4.channel.k8s.io");
  Start(server);
  const LocalClient client(port_);
  client.Send("question");
  client.EndSending();
  EXPECT_EQ(client.ReadToEnd(), "answer");
}

TEST_F(PortForwarderTest, APortInTwoPiecesIsTakenOff) {
  FakeServer server([](Socket& socket) {
    SendTo(socket, 0, kPort.substr(0, 1));
    SendTo(socket, 0, "");
    SendTo(socket, 0, kPort.substr(1) + "data");
    socket.close(kNormal);
  });
  Start(server);
  EXPECT_EQ(LocalClient(port_).ReadToEnd(), "data");
}

TEST_F(PortForwarderTest, AFailedDialIsToldAndEndsTheConnection) {
  FakeServer server([](Socket& socket) {
    SendTo(socket, 0, kPort);
    SendTo(socket, 1, kPort);
    SendTo(socket, 1, "dial 4660: Connection ");
    SendTo(socket, 1, "refused\x1b\n");
    socket.close(kNormal);
  });
  Start(server);
  const LocalClient client(port_);
  client.Send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(client.ReadToEnd(), "");
  Stop();
  ASSERT_THAT(complaints_, SizeIs(1));
  EXPECT_THAT(complaints_[0],
              AllOf(HasSubstr("-> 4660: dial 4660: Connection refused"), testing::Not(HasSubstr("\x1b"))));
}

TEST_F(PortForwarderTest, AServerThatIsLostIsTold) {
  FakeServer server([](Socket& socket) { SendTo(socket, 0, kPort + "half"); });
  Start(server);
  EXPECT_EQ(LocalClient(port_).ReadToEnd(), "half");
  Stop();
  EXPECT_THAT(complaints_, ElementsAre(HasSubstr("is lost")));
}

TEST_F(PortForwarderTest, AnotherPortOrChannelIsRefused) {
  for (const auto& [channel, bytes] : {std::pair('\0', "\x12\x34 data"), {'\1', "\x35\x12"}, {'\2', "x"}}) {
    complaints_.clear();
    FakeServer server([&, sent = std::string(bytes), on = channel](Socket& socket) {
      SendTo(socket, on, sent);
      ReceiveFrom(socket);
    });
    Start(server);
    EXPECT_EQ(LocalClient(port_).ReadToEnd(), "");
    Stop();
    EXPECT_THAT(complaints_, ElementsAre(HasSubstr("not for port 4660")));
  }
}

TEST_F(PortForwarderTest, AUrlThatIsNotToBeHadIsTold) {
  Start([](std::uint16_t) { return absl::NotFoundError("the pod is gone"); });
  const LocalClient client(port_);
  client.Send("hello?");
  EXPECT_EQ(client.ReadToEnd(), "");
  Stop();
  EXPECT_THAT(complaints_, ElementsAre(HasSubstr("the pod is gone")));
}

TEST_F(PortForwarderTest, AClientThatVanishesTakesItsStreamAlong) {
  std::atomic<bool> gone = false;
  FakeServer server([&](Socket& socket) {
    try {
      SendTo(socket, 0, kPort + std::string(100'000, 'x'));
      for (;;) ReceiveFrom(socket);
    } catch (const boost::system::system_error&) {
      gone = true;
      throw;
    }
  });
  Start(server);
  {
    const LocalClient client(port_);
    EXPECT_EQ(client.ReadOne(), 'x');
  }  // with bytes unread, which is a reset
  server.Finish();
  EXPECT_TRUE(gone);
  Stop();
}

// ---- where it listens -----------------------------------------------------------------------------------------------

std::vector<std::string> PlacesFor(const PortForwarderOptions& options) {
  const auto forwarder = PortForwarder::Listen(options, {});
  return forwarder.ok() ? (*forwarder)->places() : std::vector<std::string>{std::string(forwarder.status().message())};
}

TEST(PortForwarderPlacesTest, ArePrintedWithTheirPorts) {
  const auto places =
      PlacesFor({.ports = {{.local = 0, .remote = 80}, {.local = 0, .remote = 443}}, .addresses = {"127.0.0.1"}});
  EXPECT_THAT(places, ElementsAre(MatchesRegex("127\\.0\\.0\\.1:[1-9][0-9]* -> 80"),
                                  MatchesRegex("127\\.0\\.0\\.1:[1-9][0-9]* -> 443")));
  const auto several = PlacesFor({.ports = {{.local = 0, .remote = 80}}, .addresses = {"127.0.0.1", "127.0.0.2"}});
  ASSERT_THAT(several, SizeIs(2));
  EXPECT_EQ(several[0].substr(several[0].find(':')), several[1].substr(several[1].find(':')));
}

TEST(PortForwarderPlacesTest, ErrorsNameThePlace) {
  const auto taken = PortForwarder::Listen({.ports = {{.local = 0, .remote = 80}}, .addresses = {"127.0.0.1"}}, {});
  ASSERT_TRUE(taken.ok());
  const std::string place = (*taken)->places().at(0);
  const std::string text = place.substr(10, place.find(' ') - 10);
  int port = 0;
  ASSERT_TRUE(absl::SimpleAtoi(text, &port));
  EXPECT_THAT(PlacesFor({.ports = {{.local = static_cast<std::uint16_t>(port), .remote = 80}}}),
              ElementsAre(AllOf(HasSubstr("listen at 127.0.0.1:" + text), HasSubstr("in use"))));
  EXPECT_THAT(PlacesFor({.ports = {{.local = 0, .remote = 80}}, .addresses = {"node.example"}}),
              ElementsAre(AllOf(HasSubstr("--address"), HasSubstr("node.example"))));
}

}  // namespace
}  // namespace husk::huskctl
