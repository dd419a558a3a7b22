#include "cri/streaming/websocket_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "cri/streaming/big_endian.h"
#include "cri/streaming/wire_for_test.h"

namespace husk::cri {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

enum Opcode : std::uint8_t { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };

// As a client sends it: masked.
std::string Frame(std::uint8_t opcode, std::string payload, bool final = true) {
  std::string bytes(1, static_cast<char>((final ? 0x80 : 0) | opcode));
  if (payload.size() < 126) {
    bytes.push_back(static_cast<char>(0x80 | payload.size()));
  } else if (payload.size() <= 0xffff) {
    bytes.push_back(static_cast<char>(0x80 | 126));
    AppendBigEndian(payload.size(), 2, &bytes);
  } else {
    bytes.push_back(static_cast<char>(0x80 | 127));
    AppendBigEndian(payload.size(), 8, &bytes);
  }
  const std::string mask = "\x12\x34\x56\x78";
  for (std::size_t index = 0; index < payload.size(); ++index) {
    payload[index] = static_cast<char>(payload[index] ^ mask[index % 4]);
  }
  return bytes + mask + payload;
}

std::string ServerFrame(std::uint8_t opcode, const std::string& payload) {
  return std::string(1, static_cast<char>(0x80 | opcode)) + static_cast<char>(payload.size()) + payload;
}

std::string CloseFrame(std::uint16_t code) {
  std::string payload;
  AppendBigEndian(code, 2, &payload);
  return ServerFrame(kClose, payload);
}

std::string Channel(int channel, const std::string& data) {
  return std::string(1, static_cast<char>(channel)) + data;
}

class WebSocketCodecTest : public ::testing::Test {
 protected:
  Status Receive(const std::string& bytes) {
    events_.clear();
    return codec_.Receive(bytes, &events_);
  }
  // The error, and the code in the close frame that goes out.
  static void ExpectFailure(const std::string& bytes, std::uint16_t code, const std::string& words,
                            WebSocketCodec::Options options = {.half_close = true}) {
    WebSocketCodec codec(options);
    std::vector<WireEvent> events;
    const Status status = codec.Receive(bytes, &events);
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
    EXPECT_EQ(codec.TakeOutput(), CloseFrame(code));
  }

  WebSocketCodec codec_{{.half_close = true}};
  WebSocketCodec text_{{.base64 = true}};
  std::vector<WireEvent> events_;
};

TEST_F(WebSocketCodecTest, AnswersTheKeyOfTheRfcsExample) {
  EXPECT_EQ(WebSocketCodec::AcceptKey("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

TEST_F(WebSocketCodecTest, MessagesHoweverTheBytesAreCut) {
  const std::string bytes = Frame(kBinary, Channel(0, "one ")) + Frame(kPing, "p") +
                            Frame(kBinary, Channel(0, "t"), false) + Frame(kPing, "q") +
                            Frame(kContinuation, "w", false) + Frame(kContinuation, "o") + Frame(kBinary, "") +
                            Frame(kText, Channel(4, "{}")) + Frame(kBinary, Channel(255, std::string(1, 0)));
  for (const std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{5}, bytes.size()}) {
    WebSocketCodec codec({.half_close = true});
    std::vector<WireEvent> events;
    ASSERT_TRUE(ReceiveInPieces(codec, bytes, size, &events).ok());
    EXPECT_THAT(Words(events), ElementsAre("data 0 one two", "data 4 {}", "end 0")) << size;
    EXPECT_EQ(codec.TakeOutput(), ServerFrame(kPong, "p") + ServerFrame(kPong, "q"));
  }
}

TEST_F(WebSocketCodecTest, LongFramesInBothForms) {
  ASSERT_TRUE(Receive(Frame(kBinary, Channel(0, std::string(60'000, 'a')))).ok());
  EXPECT_THAT(Words(events_), ElementsAre("data 0 " + std::string(60'000, 'a')));
  ASSERT_TRUE(Receive(Frame(kBinary, Channel(0, std::string(1'000'000, 'b')))).ok());
  EXPECT_THAT(Words(events_), ElementsAre("data 0 " + std::string(1'000'000, 'b')));
}

TEST_F(WebSocketCodecTest, SendsChannels) {
  codec_.Send(1, "out");
  codec_.Send(2, "");
  codec_.SendEnd(1);
  EXPECT_EQ(codec_.TakeOutput(), ServerFrame(kBinary, Channel(1, "out")) + ServerFrame(kBinary, Channel(2, "")));
  codec_.Send(1, std::string(40'000, 'x'));
  const std::string output = codec_.TakeOutput();
  EXPECT_EQ(output.size(), 4U + 1 + 32768 + 4 + 1 + 40'000 - 32768);
}

TEST_F(WebSocketCodecTest, Base64IsTextWithADigitForTheChannel) {
  ASSERT_TRUE(text_
                  .Receive(Frame(kText, "0aGVs", false) + Frame(kContinuation, "bG8=") + Frame(kText, "4e30=") +
                               Frame(kText, "0"),
                           &events_)
                  .ok());
  EXPECT_THAT(Words(events_), ElementsAre("data 0 hello", "data 4 {}"));
  text_.Send(1, "hello");
  text_.Send(2, "");
  EXPECT_EQ(text_.TakeOutput(), ServerFrame(kText, "1aGVsbG8=") + ServerFrame(kText, "2"));
}

TEST_F(WebSocketCodecTest, OnlyTheFifthVersionEndsChannels) {
  WebSocketCodec fourth({});
  ASSERT_TRUE(fourth.Receive(Frame(kBinary, Channel(255, "x")), &events_).ok());
  EXPECT_THAT(Words(events_), ElementsAre("data 255 x"));
}

TEST_F(WebSocketCodecTest, TheClosesMeet) {
  ASSERT_TRUE(Receive(Frame(kClose, "") + Frame(kBinary, Channel(0, "after"))).ok());
  EXPECT_THAT(Words(events_), ElementsAre("closing"));
  EXPECT_EQ(codec_.TakeOutput(), CloseFrame(1000));
  codec_.Send(1, "x");
  codec_.SendClose();
  codec_.KeepAlive();
  ASSERT_TRUE(Receive(Frame(kBinary, Channel(0, "x"))).ok());
  EXPECT_THAT(events_, IsEmpty());
  EXPECT_EQ(codec_.TakeOutput(), "");
}

TEST_F(WebSocketCodecTest, OurCloseIsSentOnce) {
  codec_.SendClose();
  EXPECT_EQ(codec_.TakeOutput(), CloseFrame(1000));
  ASSERT_TRUE(Receive(Frame(kPing, "") + Frame(kClose, "\x03\xe8")).ok());
  EXPECT_THAT(Words(events_), ElementsAre("closing"));
  EXPECT_EQ(codec_.TakeOutput(), "");
}

TEST_F(WebSocketCodecTest, APongThatNobodyAskedForKeepsThePeer) {
  codec_.KeepAlive();
  EXPECT_EQ(codec_.TakeOutput(), ServerFrame(kPong, ""));
}

TEST_F(WebSocketCodecTest, BreachesOfTheProtocolEndIt) {
  ExpectFailure(std::string("\x82\x01\x00", 3), 1002, "not masked");
  ExpectFailure("\xc2\x80", 1002, "reserved bits");
  ExpectFailure(Frame(3, ""), 1002, "unknown opcode 3");
  ExpectFailure(Frame(kContinuation, "x"), 1002, "continues no message");
  ExpectFailure(Frame(kBinary, "x", false) + Frame(kBinary, "y"), 1002, "inside another one");
  ExpectFailure(Frame(kPing, "", false), 1002, "cut into pieces");
  ExpectFailure(Frame(kPing, std::string(126, 'p')), 1002, "too long");
  ExpectFailure("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff....", 1002, "out of range");
}

TEST_F(WebSocketCodecTest, BadContentEndsIt) {
  ExpectFailure(Frame(kBinary, Channel(255, "ab")), 1007, "does not name one channel");
  ExpectFailure(Frame(kBinary, Channel(255, "")), 1007, "does not name one channel");
  ExpectFailure(Frame(kBinary, Channel(255, std::string(100, 'x'))), 1007, "too long");
  ExpectFailure(Frame(kText, "xaGVs"), 1007, "not a digit", {.base64 = true});
  ExpectFailure(Frame(kText, "0a?Vs"), 1007, "not base64", {.base64 = true});
}

TEST_F(WebSocketCodecTest, AMessageInBase64IsBounded) {
  const std::string piece = Frame(kContinuation, std::string(1 << 20, 'A'), false);
  Status status = text_.Receive(Frame(kText, "0", false), &events_);
  for (int count = 0; count < 5 && status.ok(); ++count) status = text_.Receive(piece, &events_);
  EXPECT_THAT(std::string(status.message()), HasSubstr("longer than"));
  EXPECT_EQ(text_.TakeOutput(), CloseFrame(1009));
}

TEST_F(WebSocketCodecTest, NoiseNeverHarms) {
  std::mt19937 random(7);  // NOLINT: the same in each run
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = Frame(kBinary, Channel(0, "input")) + Frame(kPing, "ping") + Frame(kText, "0aGVsbG8=", false) +
                        Frame(kContinuation, "") + Frame(kClose, "");
    for (int change = 0; change < 3; ++change) bytes[random() % bytes.size()] = static_cast<char>(random());
    for (const bool base64 : {false, true}) {
      WebSocketCodec codec({.base64 = base64, .half_close = !base64});
      std::vector<WireEvent> events;
      if (ReceiveInPieces(codec, bytes, 1 + random() % 20, &events).ok()) codec.SendClose();
      EXPECT_LT(codec.TakeOutput().size(), 1000U);
    }
  }
}

}  // namespace
}  // namespace husk::cri
