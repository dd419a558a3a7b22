#include "cri/streaming/spdy_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <initializer_list>
#include <memory>
#include <random>
#include <utility>

#include "cri/streaming/big_endian.h"
#include "cri/streaming/wire_for_test.h"

namespace husk::cri {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Number(std::uint64_t value, std::size_t bytes) {
  std::string out;
  AppendBigEndian(value, bytes, &out);
  return out;
}

std::string Control(std::uint64_t type, std::uint64_t flags, const std::string& payload) {
  return Number(0x8003, 2) + Number(type, 2) + Number(flags, 1) + Number(payload.size(), 3) + payload;
}

std::string Data(std::uint64_t stream, std::uint64_t flags, const std::string& payload) {
  return Number(stream, 4) + Number(flags, 1) + Number(payload.size(), 3) + payload;
}

std::string RstStream(std::uint64_t stream, std::uint64_t code) {
  return Control(3, 0, Number(stream, 4) + Number(code, 4));
}

std::string Ping(std::uint64_t id) {
  return Control(6, 0, Number(id, 4));
}

// A zlib stream like a client's, but for blocks that no honest client sends.
class Deflater {
 public:
  Deflater() { deflateInit(zlib_.get(), 9); }
  ~Deflater() { deflateEnd(zlib_.get()); }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;
  std::string Compress(std::string block) {
    std::string out(deflateBound(zlib_.get(), block.size()) + 64, '\0');
    zlib_->next_in = reinterpret_cast<Bytef*>(block.data());
    zlib_->avail_in = static_cast<uInt>(block.size());
    zlib_->next_out = reinterpret_cast<Bytef*>(out.data());
    zlib_->avail_out = static_cast<uInt>(out.size());
    deflate(zlib_.get(), Z_SYNC_FLUSH);
    out.resize(out.size() - zlib_->avail_out);
    return out;
  }

 private:
  std::unique_ptr<z_stream> zlib_ = std::make_unique<z_stream>();
};

class SpdyCodecTest : public ::testing::Test {
 protected:
  std::string Syn(std::uint64_t id, const WireHeaders& headers = {}, std::uint64_t flags = 0) {
    return SynWithBlock(id, client_.Write(headers), flags);
  }
  static std::string SynWithBlock(std::uint64_t id, const std::string& block, std::uint64_t flags = 0) {
    return Control(1, flags, Number(id, 4) + Number(0, 6) + block);
  }
  // In this order: a block depends on those before it, and the operands of + are made in any order.
  static std::string Frames(std::initializer_list<std::string> frames) {
    std::string bytes;
    for (const std::string& frame : frames) bytes += frame;
    return bytes;
  }
  std::string Reply(std::uint64_t id) { return Control(2, 0, Number(id, 4) + replies_.Write({})); }
  Status Receive(const std::string& bytes) {
    events_.clear();
    return codec_.Receive(bytes, &events_);
  }

  SpdyHeaderWriter client_;
  SpdyHeaderWriter replies_;  // in step with the codec's own
  SpdyCodec codec_;
  std::vector<WireEvent> events_;
};

TEST_F(SpdyCodecTest, AnswersAStreamAtOnceAndTellsItsHeaders) {
  ASSERT_TRUE(Receive(Frames({Syn(1, {{"streamtype", "error"}}), Syn(3, {{"streamtype", "stdin"}, {"a", "b"}})})).ok());
  EXPECT_THAT(Words(events_), ElementsAre("open 1", "open 3"));
  EXPECT_EQ(events_[0].headers, (WireHeaders{{"streamtype", "error"}}));
  EXPECT_EQ(events_[1].headers, (WireHeaders{{"streamtype", "stdin"}, {"a", "b"}}));
  EXPECT_EQ(codec_.TakeOutput(), Frames({Reply(1), Reply(3)}));
  EXPECT_EQ(codec_.TakeOutput(), "");
}

TEST_F(SpdyCodecTest, RepliesAreReadableByAClientsZlibStream) {
  ASSERT_TRUE(Receive(Frames({Syn(1), Syn(3)})).ok());
  const std::string output = codec_.TakeOutput();
  SpdyHeaderReader reader;
  const std::size_t first = 8 + ReadBigEndian(output, 5, 3);
  EXPECT_EQ(reader.Read(std::string_view(output).substr(12, first - 12)).value(), WireHeaders());
  EXPECT_EQ(reader.Read(std::string_view(output).substr(first + 12)).value(), WireHeaders());
}

TEST_F(SpdyCodecTest, DataAndHalfCloseHoweverTheBytesAreCut) {
  const std::string bytes = Frames({Syn(1, {{"x", "y"}}), Data(1, 0, "hello "), Ping(1), Data(1, 0, ""),
                                    Data(1, 1, "world"), Syn(3, {}, 1), Data(1, 0, "too late")});
  for (const std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{7}, bytes.size()}) {
    SpdyCodec codec;
    std::vector<WireEvent> events;
    ASSERT_TRUE(ReceiveInPieces(codec, bytes, size, &events).ok());
    EXPECT_THAT(Words(events), ElementsAre("open 1", "data 1 hello world", "end 1", "open 3", "end 3")) << size;
  }
}

TEST_F(SpdyCodecTest, EachSideEndsByItself) {
  ASSERT_TRUE(Receive(Syn(1)).ok());
  codec_.TakeOutput();
  codec_.Send(1, "out");
  codec_.SendEnd(1);
  codec_.Send(1, "after the end");
  codec_.SendEnd(1);
  EXPECT_EQ(codec_.TakeOutput(), Data(1, 0, "out") + Data(1, 1, ""));
  ASSERT_TRUE(Receive(Data(1, 1, "in")).ok());
  EXPECT_THAT(Words(events_), ElementsAre("data 1 in", "end 1"));
  ASSERT_TRUE(Receive(Data(1, 1, "more")).ok());
  EXPECT_THAT(Words(events_), IsEmpty());
}

TEST_F(SpdyCodecTest, LongDataGoesInFramesThatLetOthersIn) {
  ASSERT_TRUE(Receive(Syn(1)).ok());
  codec_.TakeOutput();
  const std::string data(100'000, 'd');
  codec_.Send(1, data);
  EXPECT_EQ(codec_.TakeOutput(), Data(1, 0, data.substr(0, 32768)) + Data(1, 0, data.substr(0, 32768)) +
                                     Data(1, 0, data.substr(0, 32768)) + Data(1, 0, data.substr(0, 1696)));
}

TEST_F(SpdyCodecTest, EchoesTheClientsPingsAndNoOthers) {
  ASSERT_TRUE(Receive(Ping(1) + Ping(2) + Ping(0x7fffffff)).ok());
  EXPECT_EQ(codec_.TakeOutput(), Ping(1) + Ping(0x7fffffff));
}

TEST_F(SpdyCodecTest, PingsOfItsOwnAreEvenAndTheirEchoesEndThere) {
  codec_.KeepAlive();
  codec_.KeepAlive();
  EXPECT_EQ(codec_.TakeOutput(), Ping(2) + Ping(4));
  ASSERT_TRUE(Receive(Ping(2) + Ping(4)).ok());
  EXPECT_EQ(codec_.TakeOutput(), "");
}

TEST_F(SpdyCodecTest, IdsAreOddAndRise) {
  ASSERT_TRUE(Receive(Frames({Syn(5), Syn(2), Syn(3), Syn(0)})).ok());
  EXPECT_THAT(Words(events_), ElementsAre("open 5"));
  EXPECT_EQ(codec_.TakeOutput(), Reply(5) + RstStream(2, 1) + RstStream(3, 1) + RstStream(0, 1));
  // The zlib stream is in step all the same.
  ASSERT_TRUE(Receive(Syn(7, {{"a", "b"}})).ok());
  EXPECT_EQ(events_.at(0).headers, (WireHeaders{{"a", "b"}}));
}

TEST_F(SpdyCodecTest, AStreamThatIsOpenedTwiceIsLost) {
  ASSERT_TRUE(Receive(Frames({Syn(1), Syn(1), Data(1, 0, "x")})).ok());
  EXPECT_THAT(Words(events_), ElementsAre("open 1", "reset 1"));
}

TEST_F(SpdyCodecTest, RefusedStreamsAreResetAndTheirDataIsThrownAway) {
  ASSERT_TRUE(Receive(Syn(1)).ok());
  codec_.TakeOutput();
  codec_.Refuse(1);
  EXPECT_EQ(codec_.TakeOutput(), RstStream(1, 3));
  ASSERT_TRUE(Receive(Data(1, 0, "x") + Syn(3)).ok());
  EXPECT_THAT(Words(events_), ElementsAre("open 3"));
  codec_.TakeOutput();
  codec_.Send(1, "x");
  EXPECT_EQ(codec_.TakeOutput(), "");
}

TEST_F(SpdyCodecTest, AResetEndsAStreamBothWays) {
  ASSERT_TRUE(Receive(Syn(1) + RstStream(1, 5) + RstStream(9, 5) + Data(1, 0, "x")).ok());
  EXPECT_THAT(Words(events_), ElementsAre("open 1", "reset 1"));
  codec_.TakeOutput();
  codec_.Send(1, "x");
  EXPECT_EQ(codec_.TakeOutput(), "");
}

TEST_F(SpdyCodecTest, FramesThatDoNotMatterAreTakenAndNotAnswered) {
  const std::string settings = Control(4, 0, Number(1, 4) + Number(4, 4) + Number(65536, 4));
  const std::string window = Control(9, 0, Number(1, 4) + Number(1000, 4));
  ASSERT_TRUE(Receive(settings + Syn(1) + window + Control(10, 0, "credentials") + Control(99, 0, "")).ok());
  EXPECT_THAT(Words(events_), ElementsAre("open 1"));
  EXPECT_EQ(codec_.TakeOutput(), Reply(1));
}

TEST_F(SpdyCodecTest, HeadersFramesKeepTheZlibStreamInStep) {
  ASSERT_TRUE(Receive(Frames({Syn(1), Control(8, 0, Number(1, 4) + client_.Write({{"more", "headers"}})),
                              Control(2, 0, Number(1, 4) + client_.Write({{"a", "reply"}}))}))
                  .ok());
  ASSERT_TRUE(Receive(Syn(3, {{"streamtype", "stdout"}})).ok());
  EXPECT_EQ(events_.at(0).headers, (WireHeaders{{"streamtype", "stdout"}}));
}

TEST_F(SpdyCodecTest, GoAwayNamesTheLastStreamOnceAndRefusesLaterOnes) {
  ASSERT_TRUE(Receive(Frames({Syn(1), Syn(7)})).ok());
  codec_.TakeOutput();
  codec_.SendClose();
  codec_.SendClose();
  EXPECT_EQ(codec_.TakeOutput(), Control(7, 0, Number(7, 4) + Number(0, 4)));
  ASSERT_TRUE(Receive(Syn(9)).ok());
  EXPECT_EQ(codec_.TakeOutput(), RstStream(9, 3));
}

TEST_F(SpdyCodecTest, ThePeersGoAwayIsTold) {
  ASSERT_TRUE(Receive(Control(7, 0, Number(0, 4) + Number(0, 4))).ok());
  EXPECT_THAT(Words(events_), ElementsAre("closing"));
}

TEST_F(SpdyCodecTest, StreamsAreBounded) {
  std::string bytes;
  for (std::uint64_t index = 0; index < SpdyCodec::kMaximumStreams; ++index) bytes += Syn(2 * index + 1);
  ASSERT_TRUE(Receive(bytes).ok());
  EXPECT_EQ(events_.size(), SpdyCodec::kMaximumStreams);
  codec_.TakeOutput();
  const std::uint64_t next = 2 * SpdyCodec::kMaximumStreams + 1;
  ASSERT_TRUE(Receive(Syn(next)).ok());
  EXPECT_THAT(events_, IsEmpty());
  EXPECT_EQ(codec_.TakeOutput(), RstStream(next, 3));
}

TEST_F(SpdyCodecTest, OtherVersionsAreAnError) {
  const Status status = Receive(Number(0x8002, 2) + Number(6, 2) + Number(4, 4) + Number(1, 4));
  EXPECT_THAT(std::string(status.message()), HasSubstr("SPDY version 2"));
}

TEST_F(SpdyCodecTest, CutControlFramesAreAnError) {
  for (const std::uint64_t type : {1, 2, 3, 6, 8}) {
    SpdyCodec codec;
    EXPECT_TRUE(absl::IsInvalidArgument(codec.Receive(Control(type, 0, "abc"), &events_))) << type;
  }
}

TEST_F(SpdyCodecTest, AHugeControlFrameIsRefusedBeforeItComes) {
  EXPECT_TRUE(absl::IsResourceExhausted(Receive(Number(0x80030001, 4) + Number(0x00ffffff, 4))));
}

TEST_F(SpdyCodecTest, AMillionInASmallBlockIsNotInflated) {
  Deflater deflater;
  const std::string bomb = Number(1, 4) + Number(1, 4) + "n" + Number(1 << 20, 4) + std::string(100'000'000, 'x');
  const std::string block = deflater.Compress(bomb);
  ASSERT_LT(block.size(), 200'000U);
  EXPECT_TRUE(absl::IsResourceExhausted(Receive(SynWithBlock(1, block))));
}

TEST_F(SpdyCodecTest, TooManyHeadersAndTooLongFieldsAreRefused) {
  WireHeaders many(kMaximumSpdyHeaders + 1, {"n", "v"});
  EXPECT_TRUE(absl::IsResourceExhausted(Receive(Syn(1, many))));
  SpdyCodec fits;
  many.pop_back();
  SpdyHeaderWriter writer;
  EXPECT_TRUE(fits.Receive(SynWithBlock(1, writer.Write(many)), &events_).ok());
  SpdyCodec other;
  SpdyHeaderWriter fresh;
  const WireHeaders large = {{"n", std::string(kMaximumSpdyField + 1, 'v')}};
  EXPECT_TRUE(absl::IsResourceExhausted(other.Receive(SynWithBlock(1, fresh.Write(large)), &events_)));
}

TEST_F(SpdyCodecTest, DamagedBlocksAreErrors) {
  const std::vector<std::string> blocks = {"",
                                           "\x01",
                                           "not zlib at all",
                                           Deflater().Compress(""),
                                           Deflater().Compress(Number(1, 4)),
                                           Deflater().Compress(Number(1, 4) + Number(5, 4) + "ab"),
                                           Deflater().Compress(Number(0, 4) + "rest"),
                                           Deflater().Compress(Number(0xffffffff, 4))};
  for (const std::string& block : blocks) {
    SpdyCodec codec;
    EXPECT_FALSE(codec.Receive(SynWithBlock(1, block), &events_).ok());
  }
}

TEST_F(SpdyCodecTest, NoiseNeverHarms) {
  std::mt19937 random(7);  // NOLINT: the same in each run
  for (int round = 0; round < 2000; ++round) {
    SpdyHeaderWriter writer;
    std::string bytes = SynWithBlock(1, writer.Write({{"streamtype", "stdin"}})) + Data(1, 0, "some data") + Ping(1) +
                        SynWithBlock(3, writer.Write({{"streamtype", "stdout"}})) + Data(3, 1, "") + RstStream(1, 1);
    for (int change = 0; change < 3; ++change) bytes[random() % bytes.size()] = static_cast<char>(random());
    SpdyCodec codec;
    std::vector<WireEvent> events;
    if (ReceiveInPieces(codec, bytes, 1 + random() % 40, &events).ok()) codec.SendClose();
    EXPECT_LT(codec.TakeOutput().size(), 1000U);
  }
}

}  // namespace
}  // namespace husk::cri
