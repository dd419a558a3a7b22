#include "agent/guest/stream_buffer.h"

#include <gtest/gtest.h>

#include <string>

namespace husk::agent {
namespace {

TEST(StreamBufferTest, GivesBytesByOffset) {
  StreamBuffer buffer;
  buffer.Append("hello ");
  buffer.Append("world");
  EXPECT_EQ(buffer.end(), 11U);
  EXPECT_EQ(buffer.Read(0, 100), "hello world");
  EXPECT_EQ(buffer.Read(6, 3), "wor");
  EXPECT_EQ(buffer.Read(11, 100), "");
  EXPECT_EQ(buffer.Read(1000, 100), "");
}

TEST(StreamBufferTest, ForgetsOnlyWhatIsAcknowledged) {
  StreamBuffer buffer;
  buffer.Append("0123456789");
  buffer.Acknowledge(4);
  buffer.Acknowledge(2);
  EXPECT_EQ(buffer.acknowledged(), 4U);
  EXPECT_EQ(buffer.Read(0, 3), "456") << "bytes that are gone cannot be given";
  EXPECT_EQ(buffer.Read(8, 100), "89");
  buffer.Acknowledge(1'000'000);
  EXPECT_EQ(buffer.acknowledged(), 10U) << "what was never there cannot be acknowledged";
  buffer.Append("ab");
  EXPECT_EQ(buffer.Read(10, 100), "ab");
}

TEST(StreamBufferTest, HoldsNoMoreThanItsCapacity) {
  StreamBuffer buffer;
  std::uint64_t sent = 0;
  std::uint64_t read = 0;
  const auto byte_at = [](std::uint64_t offset) { return static_cast<char>('a' + offset % 23); };
  for (int round = 0; round < 500; ++round) {
    std::string bytes(std::min<std::size_t>(buffer.room(), 10'007), ' ');
    for (char& byte : bytes) byte = byte_at(sent++);
    buffer.Append(bytes);
    ASSERT_LE(buffer.end() - buffer.acknowledged(), StreamBuffer::kCapacity);
    const std::string_view next = buffer.Read(read, 7'001);
    for (const char byte : next) ASSERT_EQ(byte, byte_at(read++));
    buffer.Acknowledge(read);
  }
  EXPECT_LE(buffer.room(), 7'001U) << "the writer is faster";
}

}  // namespace
}  // namespace husk::agent
