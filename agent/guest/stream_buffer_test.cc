#include "agent/guest/stream_buffer.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <string_view>

namespace husk::agent {
namespace {

std::string Joined(const std::array<std::string_view, 2>& parts) {
  return std::string(parts[0]) + std::string(parts[1]);
}

TEST(StreamBufferTest, GivesBytesByOffset) {
  StreamBuffer buffer;
  buffer.Append("hello ");
  buffer.Append("world");
  EXPECT_EQ(buffer.end(), 11U);
  EXPECT_EQ(Joined(buffer.Read(0, 100)), "hello world");
  EXPECT_EQ(Joined(buffer.Read(6, 3)), "wor");
  EXPECT_EQ(Joined(buffer.Read(11, 100)), "");
  EXPECT_EQ(Joined(buffer.Read(1000, 100)), "");
}

TEST(StreamBufferTest, ForgetsOnlyWhatIsAcknowledged) {
  StreamBuffer buffer;
  buffer.Append("0123456789");
  buffer.Acknowledge(4);
  buffer.Acknowledge(2);
  EXPECT_EQ(buffer.acknowledged(), 4U);
  EXPECT_EQ(Joined(buffer.Read(0, 3)), "456") << "bytes that are gone cannot be given";
  EXPECT_EQ(Joined(buffer.Read(8, 100)), "89");
  buffer.Acknowledge(1'000'000);
  EXPECT_EQ(buffer.acknowledged(), 10U) << "what was never there cannot be acknowledged";
  buffer.Append("ab");
  EXPECT_EQ(Joined(buffer.Read(10, 100)), "ab");
}

TEST(StreamBufferTest, HoldsNoMemoryThatItDoesNotNeed) {
  StreamBuffer buffer;
  EXPECT_EQ(buffer.allocated(), 0U);
  buffer.Append("a few bytes");
  EXPECT_LT(buffer.allocated(), StreamBuffer::kCapacity);
  buffer.Append(std::string(buffer.room(), 'x'));
  EXPECT_EQ(buffer.allocated(), StreamBuffer::kCapacity);
  EXPECT_TRUE(buffer.Space().empty());
  EXPECT_EQ(Joined(buffer.Read(5, 8)), " bytesxx") << "growing keeps what is there";
  buffer.Release();
  EXPECT_EQ(buffer.allocated(), StreamBuffer::kCapacity) << "it is needed";
  buffer.Acknowledge(buffer.end());
  buffer.Release();
  EXPECT_EQ(buffer.allocated(), 0U);
  EXPECT_EQ(Joined(buffer.Read(0, 100)), "");
  buffer.Append("more");
  EXPECT_EQ(Joined(buffer.Read(0, 100)), "more");
  EXPECT_EQ(buffer.end(), StreamBuffer::kCapacity + 4);
}

TEST(StreamBufferTest, HoldsNoMoreThanItsCapacity) {
  StreamBuffer buffer;
  std::uint64_t sent = 0;
  std::uint64_t read = 0;
  const auto byte_at = [](std::uint64_t offset) { return static_cast<char>('a' + offset % 23); };
  for (int round = 0; round < 1500; ++round) {
    std::string bytes(std::min<std::size_t>(buffer.room(), 10'007), ' ');
    for (char& byte : bytes) byte = byte_at(sent++);
    buffer.Append(bytes);
    ASSERT_LE(buffer.end() - buffer.acknowledged(), StreamBuffer::kCapacity);
    const std::string next = Joined(buffer.Read(read, 7'001));
    for (const char byte : next) ASSERT_EQ(byte, byte_at(read++));
    buffer.Acknowledge(read);
  }
  EXPECT_LE(buffer.room(), 7'001U) << "the writer is faster";
}

}  // namespace
}  // namespace husk::agent
