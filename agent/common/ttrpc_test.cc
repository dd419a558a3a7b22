#include "agent/common/ttrpc.h"

#include <gtest/gtest.h>

namespace husk::ttrpc {
namespace {

TEST(Ttrpc, EncodesTheWireFormat) {
  const std::string bytes = Encode({.stream_id = 0x01020304, .type = MessageType::kResponse, .payload = "abc"});
  EXPECT_EQ(bytes, std::string("\x00\x00\x00\x03\x01\x02\x03\x04\x02\x00"
                               "abc",
                               13));
}

TEST(Ttrpc, DecodesFramesThatArriveByteByByte) {
  const std::string bytes = Encode({.stream_id = 1, .payload = "first"}) + Encode({.stream_id = 3, .payload = ""});
  Decoder decoder;
  std::vector<Frame> frames;
  for (const char byte : bytes) {
    decoder.Append({&byte, 1});
    auto frame = decoder.Next();
    ASSERT_TRUE(frame.ok());
    if (*frame) frames.push_back(**frame);
  }
  ASSERT_EQ(frames.size(), 2U);
  EXPECT_EQ(frames[0].payload, "first");
  EXPECT_EQ(frames[1].stream_id, 3U);
}

TEST(Ttrpc, DecodesSeveralFramesOfOneRead) {
  Decoder decoder;
  decoder.Append(Encode({.stream_id = 1, .payload = "a"}) + Encode({.stream_id = 3, .payload = "b"}));
  EXPECT_EQ((**decoder.Next()).payload, "a");
  EXPECT_EQ((**decoder.Next()).payload, "b");
  EXPECT_FALSE(decoder.Next()->has_value());
}

// AGT-01: four gigabytes are announced; nothing is allocated for them, and the stream is given up.
TEST(Ttrpc, AGT01_RefusesAFrameThatIsTooLong) {
  Decoder decoder;
  decoder.Append(std::string_view("\xff\xff\xff\xff\x00\x00\x00\x01\x02\x00", 10));
  EXPECT_EQ(decoder.Next().status().code(), absl::StatusCode::kInvalidArgument);
  decoder.Append(Encode({.stream_id = 1, .payload = "good"}));
  EXPECT_FALSE(decoder.Next().ok());
}

TEST(Ttrpc, AGT01_RefusesAnUnknownType) {
  Decoder decoder;
  decoder.Append(std::string_view("\x00\x00\x00\x00\x00\x00\x00\x01\x09\x00", 10));
  EXPECT_FALSE(decoder.Next().ok());
}

}  // namespace
}  // namespace husk::ttrpc
