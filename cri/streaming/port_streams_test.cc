#include "cri/streaming/port_streams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace husk::cri {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// Notes what it is told to send.
class NotedWire final : public Wire {
 public:
  Status Receive(std::string_view /*bytes*/, std::vector<WireEvent>* /*events*/) override { return absl::OkStatus(); }
  void Send(WireStream stream, std::string_view data) override {
    said.push_back("send " + std::to_string(stream) + " " + std::string(data));
  }
  void SendEnd(WireStream stream) override { said.push_back("end " + std::to_string(stream)); }
  void Refuse(WireStream stream) override { said.push_back("refuse " + std::to_string(stream)); }
  void SendClose() override { said.emplace_back("close"); }
  void KeepAlive() override {}
  std::string TakeOutput() override { return ""; }
  std::vector<std::string> said;
};

class PortStreamsTest : public ::testing::Test {
 protected:
  static WireHeaders Headers(const char* type, const char* request_id, const char* port) {
    return {{"streamtype", type}, {"requestid", request_id}, {"port", port}};
  }
  void Open(WireStream stream, WireHeaders headers) {
    Event({.kind = WireEvent::Kind::kOpened, .stream = stream, .headers = std::move(headers)});
  }
  void Event(WireEvent event) { streams_.OnEvent(event, now_); }
  // What is to be carried; nothing if there is nothing.
  sandbox::PortExchange::Batch Next() {
    return exchange_.Next(Context::Background().WithTimeout(std::chrono::milliseconds(1)))
        .value_or(sandbox::PortExchange::Batch());
  }
  void OpenBoth() {
    Open(1, Headers("error", "0", "80"));
    Open(3, Headers("data", "0", "80"));
    const auto batch = Next();
    ASSERT_EQ(batch.openings.size(), 1U);
    number_ = batch.openings[0].connection;
    exchange_.Writable(number_);
  }

  std::uint64_t number_ = 0;  // of the last connection
  PortStreams::Clock::time_point now_ = PortStreams::Clock::now();
  NotedWire wire_;
  sandbox::PortExchange exchange_{{.output = [](std::uint64_t, const std::string&) {},
                                   .output_ended = [](std::uint64_t) {},
                                   .over = [](std::uint64_t, const Status&) {},
                                   .read_on = [] {}}};
  PortStreams streams_{{}, wire_, exchange_};
};

TEST_F(PortStreamsTest, TwoStreamsAreAConnection) {
  OpenBoth();
  Event({.kind = WireEvent::Kind::kData, .stream = 3, .data = "hello"});
  Event({.kind = WireEvent::Kind::kEnded, .stream = 3});
  const auto batch = Next();
  ASSERT_EQ(batch.pieces.size(), 1U);
  EXPECT_EQ(batch.pieces[0].bytes, "hello");
  EXPECT_TRUE(batch.pieces[0].end);
  EXPECT_TRUE(streams_.Output(number_, "answer"));
  streams_.OutputEnded(number_);
  streams_.Over(number_, absl::OkStatus());
  EXPECT_THAT(wire_.said, ElementsAre("send 3 answer", "end 3", "end 1", "end 3"));
  EXPECT_FALSE(streams_.Output(number_, "late"));
  // The id is free again.
  Open(5, Headers("error", "0", "80"));
  Open(7, Headers("data", "0", "80"));
  EXPECT_EQ(Next().openings.size(), 1U);
}

TEST_F(PortStreamsTest, DataBeforeTheStreamOfErrorsIsKept) {
  Open(1, Headers("data", "0", "80"));
  Event({.kind = WireEvent::Kind::kData, .stream = 1, .data = "early"});
  Event({.kind = WireEvent::Kind::kEnded, .stream = 1});
  EXPECT_TRUE(Next().empty());
  Open(3, Headers("error", "0", "80"));
  const auto opened = Next();
  EXPECT_EQ(opened.openings.at(0).port, 80);
  exchange_.Writable(opened.openings[0].connection);
  const auto batch = Next();
  ASSERT_EQ(batch.pieces.size(), 1U);
  EXPECT_EQ(batch.pieces[0].bytes, "early");
  EXPECT_TRUE(batch.pieces[0].end);
}

TEST_F(PortStreamsTest, TooMuchDataBeforeTheStreamOfErrors) {
  Open(1, Headers("data", "0", "80"));
  Event({.kind = WireEvent::Kind::kData, .stream = 1, .data = std::string(PortStreams::kMaximumEarlyData, 'x')});
  EXPECT_THAT(wire_.said, IsEmpty());
  Event({.kind = WireEvent::Kind::kData, .stream = 1, .data = "y"});
  EXPECT_THAT(wire_.said, ElementsAre("refuse 1"));
}

TEST_F(PortStreamsTest, StrFourBadPorts) {
  WireStream stream = 1;
  for (const char* port : {"0", "65536", "-1", "http", ""}) {
    Open(stream, Headers("error", "0", port));
    Open(stream + 2, Headers("data", "0", port));
    EXPECT_THAT(wire_.said, ElementsAre(AllOf(StartsWith("send " + std::to_string(stream) + " port: "),
                                              HasSubstr("expected 1 to 65535")),
                                        "end " + std::to_string(stream), "refuse " + std::to_string(stream + 2)))
        << port;
    wire_.said.clear();
    stream += 4;
  }
  EXPECT_TRUE(Next().empty());
}

TEST_F(PortStreamsTest, HeadersThatAreMissingOrTwice) {
  Open(1, {{"streamtype", "error"}, {"port", "80"}});
  EXPECT_THAT(wire_.said, ElementsAre(StartsWith("send 1 requestid: "), "end 1"));
  wire_.said.clear();
  Open(3, {{"streamtype", "error"}, {"requestid", "0"}});
  EXPECT_THAT(wire_.said, ElementsAre(StartsWith("send 3 port: "), "end 3"));
  wire_.said.clear();
  Open(5, {{"streamtype", "error"}, {"requestid", "0"}, {"port", "80"}, {"port", "81"}});
  EXPECT_THAT(wire_.said, ElementsAre(StartsWith("send 5 port: "), "end 5"));
  wire_.said.clear();
  Open(7, {{"requestid", "0"}, {"port", "80"}});
  Open(9, Headers("stdin", "0", "80"));
  Open(11, Headers("data", std::string(257, '1').c_str(), "80"));
  EXPECT_THAT(wire_.said, ElementsAre("refuse 7", "refuse 9", "refuse 11"));
  EXPECT_FALSE(streams_.next_expiry());
}

TEST_F(PortStreamsTest, ARequestIdInUse) {
  OpenBoth();
  Open(5, Headers("data", "0", "80"));
  Open(7, Headers("error", "0", "80"));
  Open(9, Headers("error", "1", "80"));
  Open(11, Headers("data", "1", "81"));
  EXPECT_THAT(wire_.said, ElementsAre("refuse 5", "send 7 requestid: is in use", "end 7", "refuse 11"));
}

TEST_F(PortStreamsTest, AStreamThatStaysAlone) {
  Open(1, Headers("error", "0", "80"));
  Open(3, Headers("data", "1", "80"));
  ASSERT_TRUE(streams_.next_expiry());
  streams_.Expire(now_ + std::chrono::seconds(29));
  EXPECT_THAT(wire_.said, IsEmpty());
  streams_.Expire(now_ + std::chrono::seconds(30));
  EXPECT_THAT(wire_.said,
              ElementsAre(HasSubstr("send 1 the stream with streamtype data did not come"), "end 1", "refuse 3"));
  EXPECT_FALSE(streams_.next_expiry());
}

TEST_F(PortStreamsTest, AClientThatGivesUp) {
  OpenBoth();
  Event({.kind = WireEvent::Kind::kReset, .stream = 3});
  EXPECT_THAT(wire_.said, ElementsAre("end 1", "end 3"));
  EXPECT_THAT(Next().closed, ElementsAre(number_));
}

TEST_F(PortStreamsTest, NumbersRiseInTheOrderInWhichConnectionsAreComplete) {
  Open(1, Headers("error", "a", "80"));
  Open(3, Headers("error", "b", "81"));
  Open(5, Headers("data", "b", "81"));
  Open(7, Headers("data", "a", "80"));
  const auto batch = Next();
  ASSERT_EQ(batch.openings.size(), 2U);
  EXPECT_EQ(batch.openings[0].port, 81);
  EXPECT_EQ(batch.openings[1].port, 80);
  EXPECT_LT(batch.openings[0].connection, batch.openings[1].connection);
  streams_.Output(batch.openings[0].connection, "from 81");
  streams_.Output(batch.openings[1].connection, "from 80");
  EXPECT_THAT(wire_.said, ElementsAre("send 5 from 81", "send 7 from 80"));
}

TEST_F(PortStreamsTest, AFailureIsSaidAndTheDataIsReset) {
  OpenBoth();
  streams_.Over(number_, absl::UnavailableError("nobody listens"));
  EXPECT_THAT(wire_.said, ElementsAre("send 1 nobody listens", "end 1", "refuse 3"));
}

TEST_F(PortStreamsTest, OnlyThePortsThatWereAskedFor) {
  PortStreams streams({.ports = {443}}, wire_, exchange_);
  WireEvent event{.kind = WireEvent::Kind::kOpened, .stream = 1, .headers = Headers("error", "0", "80")};
  streams.OnEvent(event, now_);
  EXPECT_THAT(wire_.said, Contains("send 1 port: 80 is not one of those that were asked for"));
}

TEST_F(PortStreamsTest, ChannelsOfWebSocketBeginWithThePort) {
  PortStreams streams({.websocket = true, .ports = {300, 80}}, wire_, exchange_);
  EXPECT_THAT(wire_.said, ElementsAre("send 0 \x2c\x01", "send 1 \x2c\x01", std::string("send 2 P\0", 9),
                                      std::string("send 3 P\0", 9)));
  const auto opened = Next();
  ASSERT_EQ(opened.openings.size(), 2U);
  const std::uint64_t second = opened.openings[1].connection;
  exchange_.Writable(second);
  WireEvent event{.kind = WireEvent::Kind::kData, .stream = 2, .data = "to the second"};
  streams.OnEvent(event, now_);
  EXPECT_EQ(Next().pieces.at(0).connection, second);
  // The end of one direction cannot be told, so it is that of the connection.
  streams.OutputEnded(second);
  EXPECT_THAT(Next().closed, ElementsAre(second));
  streams.EndAll(absl::UnavailableError("the pod is gone"));
  EXPECT_THAT(wire_.said, Contains("send 1 the pod is gone"));
}

}  // namespace
}  // namespace husk::cri
