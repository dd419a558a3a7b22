// Connections to real sockets of this process, one thread for both ends.
#include "agent/guest/forwardings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/common/unique_fd.h"
#include "agent/guest/event_loop.h"

namespace husk::agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kId[] = "f";

// A program that listens on the loopback, at a port that the kernel has chosen.
class Listener {
 public:
  explicit Listener(int family, int backlog = 4096) : socket_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (family == AF_INET) {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      Bind(reinterpret_cast<sockaddr*>(&address), sizeof(address), &address.sin_port);
    } else {
      sockaddr_in6 address{};
      address.sin6_family = AF_INET6;
      address.sin6_addr = in6addr_loopback;
      Bind(reinterpret_cast<sockaddr*>(&address), sizeof(address), &address.sin6_port);
    }
    EXPECT_EQ(listen(socket_.get(), backlog), 0);
  }
  [[nodiscard]] std::uint32_t port() const { return port_; }
  [[nodiscard]] UniqueFd Accept() const {
    UniqueFd accepted(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(accepted.valid());
    return accepted;
  }

 private:
  void Bind(sockaddr* address, socklen_t size, const in_port_t* port) {
    EXPECT_EQ(bind(socket_.get(), address, size), 0);
    EXPECT_EQ(getsockname(socket_.get(), address, &size), 0);
    port_ = ntohs(*port);
  }
  UniqueFd socket_;
  std::uint32_t port_ = 0;
};

void Say(const UniqueFd& socket, const std::string& text) {
  ASSERT_EQ(send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

// What it hears up to the end.
std::string HearAll(const UniqueFd& socket) {
  std::string heard;
  std::string buffer(65536, '\0');
  while (true) {
    const ssize_t count = recv(socket.get(), buffer.data(), buffer.size(), 0);
    if (count <= 0) return heard;
    heard.append(buffer, 0, static_cast<std::size_t>(count));
  }
}

class ForwardingsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = *EventLoop::Create();
    forwardings_ = std::make_unique<Forwardings>(*loop_);
    loop_->BeforeSleep([this] { forwardings_->BeforeSleep(); });
    ASSERT_TRUE(forwardings_->Open(kId).ok());
    receipts_.set_forwarding_id(kId);
    receipts_.set_wait_milliseconds(30'000);
  }

  // One poll, with receipts for all that the last one told.
  std::vector<v1::ConnectionNews> Poll() {
    std::optional<StatusOr<v1::PollForwardingResponse>> response;
    forwardings_->Poll(receipts_, [&](StatusOr<v1::PollForwardingResponse> answer) {
      response = std::move(answer);
      loop_->Stop();
    });
    loop_->Run();
    receipts_.clear_receipts();
    if (!response || !response->ok()) {
      ADD_FAILURE() << (response ? response->status().ToString() : "no answer");
      return {};
    }
    for (const auto& news : (*response)->news()) {
      v1::ConnectionReceipt& receipt = *receipts_.add_receipts();
      receipt.set_connection(news.connection());
      receipt.set_version(news.version());
      receipt.set_offset(news.offset() + news.data().size());
    }
    return {(*response)->news().begin(), (*response)->news().end()};
  }

  // Polls until connection 1 has told something that `wanted` likes; its bytes on the way there are added to output_.
  template <typename Wanted>
  v1::ConnectionNews Await(Wanted wanted) {
    for (int polls = 0; polls < 1000; ++polls) {
      for (const v1::ConnectionNews& news : Poll()) {
        EXPECT_EQ(news.offset(), output_.size());
        output_ += news.data();
        if (wanted(news)) return news;
      }
      if (HasFailure()) break;
    }
    ADD_FAILURE() << "no such news";
    return {};
  }
  void Open(std::uint32_t port) {
    Dial(1, port);
    EXPECT_EQ(Await([](const auto& news) { return news.writable() || !news.error().empty(); }).error(), "");
  }
  void Dial(std::uint64_t connection, std::uint32_t port) {
    v1::SendForwardingRequest request;
    request.set_forwarding_id(kId);
    request.add_dials()->set_connection(connection);
    request.mutable_dials(0)->set_port(port);
    ASSERT_TRUE(forwardings_->Send(request).ok());
  }
  std::uint64_t Send(std::uint64_t offset, const std::string& data, bool end = false) {
    v1::SendForwardingRequest request;
    request.set_forwarding_id(kId);
    v1::ConnectionInput& input = *request.add_inputs();
    input.set_connection(1);
    input.set_offset(offset);
    input.set_data(data);
    input.set_end(end);
    const auto response = forwardings_->Send(request);
    if (!response.ok() || response->taken_size() != 1) return ~std::uint64_t{0};
    return response->taken(0).offset();
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Forwardings> forwardings_;
  v1::PollForwardingRequest receipts_;
  std::string output_;
};

TEST_F(ForwardingsTest, BytesGoBothWaysAndEachWayEndsByItself) {
  const Listener listener(AF_INET);
  Open(listener.port());
  const UniqueFd program = listener.Accept();
  EXPECT_EQ(Send(0, "hello", /*end=*/true), 5U);
  EXPECT_EQ(HearAll(program), "hello");
  // Its input has ended, its output has not.
  Say(program, "good ");
  Await([](const auto& news) { return news.data() == "good "; });
  Say(program, "bye");
  shutdown(program.get(), SHUT_WR);
  Await([](const auto& news) { return news.end(); });
  EXPECT_EQ(output_, "good bye");
}

TEST_F(ForwardingsTest, TheProgramMayEndFirst) {
  const Listener listener(AF_INET);
  Open(listener.port());
  const UniqueFd program = listener.Accept();
  shutdown(program.get(), SHUT_WR);
  Await([](const auto& news) { return news.end(); });
  EXPECT_EQ(Send(0, "still "), 6U);
  EXPECT_EQ(Send(6, "heard", /*end=*/true), 11U);
  EXPECT_EQ(HearAll(program), "still heard");
}

TEST_F(ForwardingsTest, IpV6IsTriedSecond) {
  const Listener listener(AF_INET6);
  Open(listener.port());
  const UniqueFd program = listener.Accept();
  Say(program, "six");
  Await([](const auto& news) { return news.data() == "six"; });
}

TEST_F(ForwardingsTest, WhereNobodyListensIsSaid) {
  std::uint32_t port = 0;
  {
    const Listener listener(AF_INET);
    port = listener.port();
  }
  Dial(1, port);
  const auto news = Await([](const auto& told) { return !told.error().empty(); });
  EXPECT_THAT(news.error(), AllOf(HasSubstr("port " + std::to_string(port)), HasSubstr("127.0.0.1: Connection refused"),
                                  HasSubstr("[::1]: ")));
  EXPECT_FALSE(news.writable());
  // It can be closed like any other.
  EXPECT_EQ(forwardings_->connections(), 1U);
  v1::SendForwardingRequest request;
  request.set_forwarding_id(kId);
  request.add_closed(1);
  ASSERT_TRUE(forwardings_->Send(request).ok());
  EXPECT_EQ(forwardings_->connections(), 0U);
}

TEST_F(ForwardingsTest, PortsThatAreNone) {
  Dial(1, 0);
  EXPECT_THAT(Await([](const auto& news) { return !news.error().empty(); }).error(), HasSubstr("0 is no port"));
  Dial(2, 65536);
  const auto news = Poll();
  ASSERT_EQ(news.size(), 1U);
  EXPECT_THAT(news[0].error(), HasSubstr("65536 is no port"));
}

TEST_F(ForwardingsTest, NewsIsToldUntilThereIsAReceipt) {
  const Listener listener(AF_INET);
  Open(listener.port());
  const UniqueFd program = listener.Accept();
  Say(program, "once");
  ASSERT_EQ(Poll().at(0).data(), "once");
  receipts_.clear_receipts();  // the answer was lost
  ASSERT_EQ(Poll().at(0).data(), "once");
  Say(program, "more");
  const auto news = Poll();
  ASSERT_EQ(news.size(), 1U);
  EXPECT_EQ(news[0].offset(), 4U);
  EXPECT_EQ(news[0].data(), "more");
}

TEST_F(ForwardingsTest, RepetitionsChangeNothing) {
  const Listener listener(AF_INET);
  Open(listener.port());
  Dial(1, listener.port());
  EXPECT_EQ(forwardings_->connections(), 1U);
  const UniqueFd program = listener.Accept();
  EXPECT_EQ(Send(0, "abc"), 3U);
  EXPECT_EQ(Send(0, "abc"), 3U);
  EXPECT_EQ(Send(2, "cd", true), 4U);
  EXPECT_EQ(Send(2, "cd", true), 4U);
  // A gap: nothing is taken.
  EXPECT_EQ(Send(9, "x"), 4U);
  EXPECT_EQ(HearAll(program), "abcd");
  // Nor does one that is closed come back.
  v1::SendForwardingRequest request;
  request.set_forwarding_id(kId);
  request.add_closed(1);
  ASSERT_TRUE(forwardings_->Send(request).ok());
  Dial(1, listener.port());
  EXPECT_EQ(forwardings_->connections(), 0U);
  EXPECT_TRUE(forwardings_->Open(kId).ok());
}

TEST_F(ForwardingsTest, AProgramThatDoesNotReadIsWaitedFor) {
  const Listener listener(AF_INET);
  Open(listener.port());
  const UniqueFd program = listener.Accept();
  const std::string piece(256 << 10, 'x');
  std::uint64_t offset = 0;
  while (true) {
    const std::uint64_t taken = Send(offset, piece);
    ASSERT_LE(taken, std::uint64_t{64} << 20);
    const bool all = taken == offset + piece.size();
    offset = taken;
    if (!all) break;
  }
  // Not writable now; what is told of that waits for nothing.
  Await([](const auto& news) { return !news.writable(); });
  std::string buffer(1 << 20, '\0');
  std::uint64_t heard = 0;
  while (heard < offset) {
    const ssize_t count = recv(program.get(), buffer.data(), buffer.size(), 0);
    ASSERT_GT(count, 0);
    heard += static_cast<std::uint64_t>(count);
  }
  Await([](const auto& news) { return news.writable(); });
  EXPECT_EQ(Send(offset, "end", true), offset + 3);
  EXPECT_EQ(HearAll(program), "end");
}

TEST_F(ForwardingsTest, OutputThatNobodyFetchesStaysWithTheProgram) {
  const Listener listener(AF_INET);
  Open(listener.port());
  const UniqueFd program = listener.Accept();
  const std::string piece(65536, 'y');
  std::uint64_t said = 0;
  while (true) {
    const ssize_t count = send(program.get(), piece.data(), piece.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0) break;
    said += static_cast<std::uint64_t>(count);
    ASSERT_LE(said, std::uint64_t{64} << 20);
  }
  shutdown(program.get(), SHUT_WR);
  Await([](const auto& news) { return news.end(); });
  EXPECT_EQ(output_.size(), said);
}

TEST_F(ForwardingsTest, AResetIsNoEnd) {
  const Listener listener(AF_INET);
  Open(listener.port());
  {
    const UniqueFd program = listener.Accept();
    Say(program, "last words");
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(program.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  }
  const auto news = Await([](const auto& told) { return told.end() || !told.error().empty(); });
  EXPECT_FALSE(news.end());
  EXPECT_THAT(news.error(), HasSubstr("Connection reset"));
}

TEST_F(ForwardingsTest, ManyConnectionsTakeTurns) {
  constexpr std::uint64_t kCount = 200;
  const Listener listener(AF_INET);
  std::vector<UniqueFd> programs;
  for (std::uint64_t number = 1; number <= kCount; ++number) {
    Dial(number, listener.port());
    programs.push_back(listener.Accept());
    Say(programs.back(), std::string(2000, 'a'));
  }
  receipts_.set_maximum_bytes(64 << 10);
  std::map<std::uint64_t, std::size_t> heard;
  std::size_t bytes = 0;
  while (bytes < kCount * 2000 && !HasFailure()) {
    for (const auto& news : Poll()) {
      heard[news.connection()] += news.data().size();
      bytes += news.data().size();
    }
  }
  EXPECT_EQ(heard.size(), kCount);
  EXPECT_EQ(bytes, kCount * 2000);
}

TEST_F(ForwardingsTest, ClosingAForwardingClosesItsConnections) {
  const Listener listener(AF_INET);
  Open(listener.port());
  const UniqueFd program = listener.Accept();
  Status polled;
  forwardings_->Poll(receipts_, [&](const auto& answer) { polled = answer.status(); });
  forwardings_->Close("");  // as a huskd does that has just come
  EXPECT_TRUE(absl::IsNotFound(polled)) << polled;
  EXPECT_EQ(HearAll(program), "");
  EXPECT_EQ(forwardings_->connections(), 0U);
  v1::SendForwardingRequest request;
  request.set_forwarding_id(kId);
  EXPECT_TRUE(absl::IsNotFound(forwardings_->Send(request).status()));
  forwardings_->Close(kId);
}

TEST_F(ForwardingsTest, AnotherPollTakesTheOnesPlace) {
  int answers = 0;
  forwardings_->Poll(receipts_, [&](const auto& answer) {
    ++answers;
    EXPECT_EQ(answer->news_size(), 0);
  });
  receipts_.set_wait_milliseconds(0);
  EXPECT_TRUE(Poll().empty());
  EXPECT_EQ(answers, 1);
}

TEST_F(ForwardingsTest, AnIdHasToBeOne) {
  EXPECT_TRUE(absl::IsInvalidArgument(forwardings_->Open("../x")));
  EXPECT_TRUE(absl::IsInvalidArgument(forwardings_->Open("")));
}

}  // namespace
}  // namespace husk::agent
