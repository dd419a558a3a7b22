#include "cri/metrics/metrics_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"
#include "cri/config/network_address.h"

namespace husk::cri {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class MetricsServerTest : public testing::Test {
 protected:
  void Start(MetricsServerOptions options = {.address = "127.0.0.1:0"}) {
    auto server = MetricsServer::Start(options, [this] {
      ++scrapes_;
      return text_;
    });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  UniqueFd Connect() {
    const auto address = ParseNetworkAddress(server_->address());
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(address->port);
    inet_pton(AF_INET, address->host.c_str(), &to.sin_addr);
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    return fd;
  }
  static void Send(const UniqueFd& fd, const std::string& bytes) {
    EXPECT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // To the end of the connection, or half a minute of silence.
  static std::string ReadAll(const UniqueFd& fd) {
    std::string all;
    char buffer[4096];
    for (;;) {
      pollfd waiting{.fd = fd.get(), .events = POLLIN, .revents = 0};
      if (poll(&waiting, 1, 30'000) != 1) return all + "(and then silence)";
      const ssize_t count = read(fd.get(), buffer, sizeof buffer);
      if (count <= 0) return all;
      all.append(buffer, static_cast<std::size_t>(count));
    }
  }
  std::string Ask(const std::string& request) {
    const UniqueFd fd = Connect();
    Send(fd, request);
    return ReadAll(fd);
  }

  std::string text_ = "husk_pods 1\n";
  std::atomic<int> scrapes_ = 0;
  std::unique_ptr<MetricsServer> server_;
};

TEST_F(MetricsServerTest, ServesTheText) {
  Start();
  const std::string answer = Ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 12\r\n"));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nhusk_pods 1\n"));
  EXPECT_THAT(Ask("GET /metrics?x=y HTTP/1.0\r\n\r\n"), EndsWith("husk_pods 1\n"));
  const std::string head = Ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("Content-Length: 12\r\n"));
  EXPECT_THAT(head, EndsWith("\r\n\r\n"));
}

TEST_F(MetricsServerTest, ServesALargeTextWhole) {
  text_ = std::string(8 << 20, 'x');
  Start();
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").size(), testing::Gt(text_.size()));
}

TEST_F(MetricsServerTest, RefusesWhatIsNotHere) {
  Start();
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Ask("GET /metrics/../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Ask("DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"), StartsWith("HTTP/1.1 413 "));
  EXPECT_EQ(scrapes_, 0);
}

TEST_F(MetricsServerTest, GarbageAndFloodsEnd) {
  Start();
  EXPECT_THAT(Ask(std::string("\x16\x03\x01\x00garbage\r\n\r\n", 15)), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nX: " + std::string(20'000, 'x')), Not(HasSubstr("silence")));
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), EndsWith("husk_pods 1\n"));
}

TEST_F(MetricsServerTest, TricklingWinsNoTime) {
  Start({.address = "127.0.0.1:0", .time_limit = std::chrono::milliseconds(300)});
  const UniqueFd fd = Connect();
  Send(fd, "GET /met");
  // A byte each 50 ms would go on for ever if each began a new time limit.
  bool open = true;
  for (int i = 0; i < 600 && open; ++i) {
    pollfd waiting{.fd = fd.get(), .events = POLLIN, .revents = 0};
    open = poll(&waiting, 1, 50) == 0;
    if (open) send(fd.get(), "x", 1, MSG_NOSIGNAL);
  }
  EXPECT_FALSE(open);
}

TEST_F(MetricsServerTest, IdleConnectionsKeepNobodyOut) {
  Start({.address = "127.0.0.1:0", .time_limit = std::chrono::hours(1), .connection_limit = 4});
  std::vector<UniqueFd> idle;
  for (int i = 0; i < 50; ++i) idle.push_back(Connect());
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), EndsWith("husk_pods 1\n"));
  EXPECT_EQ(ReadAll(idle.front()), "");
}

TEST_F(MetricsServerTest, AnEndWithOpenConnectionsIsClean) {
  Start();
  const UniqueFd idle = Connect();
  Send(idle, "GET /");
  const UniqueFd reads_nothing = Connect();
  server_.reset();
  EXPECT_EQ(ReadAll(idle), "");
}

TEST_F(MetricsServerTest, SaysWhatIsWrongWithAnAddress) {
  for (const char* address : {"", "9477", "localhost:9477", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:9477 ",
                              "::1:9477", "[127.0.0.1]:9477", "127.0.0.1:-1"}) {
    const auto server = MetricsServer::Start({.address = address}, [] { return std::string(); });
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(server.status().message()), StartsWith("metrics.address: expected")) << address;
  }
}

TEST_F(MetricsServerTest, WaitsForAnAddressThatSomebodyElseHas) {
  const UniqueFd other(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof any;
  auto* const address = reinterpret_cast<sockaddr*>(&any);
  ASSERT_EQ(bind(other.get(), address, length), 0);
  ASSERT_EQ(listen(other.get(), 1), 0);
  ASSERT_EQ(getsockname(other.get(), address, &length), 0);
  const std::string wanted = absl::StrCat("127.0.0.1:", ntohs(any.sin_port));
  Start({.address = wanted, .first_retry = std::chrono::milliseconds(5)});
  EXPECT_EQ(server_->address(), "");
  shutdown(other.get(), SHUT_RDWR);  // it does not listen any more
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (server_->address().empty() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_EQ(server_->address(), wanted);
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 200 OK\r\n"));
  // One that never can ends all the same.
  auto never = MetricsServer::Start({.address = wanted}, [] { return std::string(); });
  ASSERT_TRUE(never.ok()) << never.status();
  EXPECT_EQ((*never)->address(), "");
  never->reset();
}

}  // namespace
}  // namespace husk::cri
