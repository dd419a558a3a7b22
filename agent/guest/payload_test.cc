#include "agent/guest/payload.h"

#include <gtest/gtest.h>

#include <string>

#include "agent/proto/agent.pb.h"

namespace husk::agent {
namespace {

std::string Joined(const Payload& payload) {
  std::string all;
  for (const std::string_view piece : payload.pieces()) all += piece;
  EXPECT_EQ(all.size(), payload.size());
  return all;
}

TEST(PayloadTest, KeepsItsPiecesWhenItMoves) {
  const std::string elsewhere = "lies elsewhere, ";
  Payload payload("owned, ");
  payload.Borrow(elsewhere);
  payload.Append("");
  payload.Append("x");
  const Payload moved = std::move(payload);
  EXPECT_EQ(Joined(moved), "owned, lies elsewhere, x");
  EXPECT_EQ(moved.pieces().size(), 3U);
}

TEST(PayloadTest, AFieldIsWhatProtobufReads) {
  for (const std::size_t size : {0U, 1U, 127U, 128U, 16383U, 16384U, 3U << 20U}) {
    const std::string data(size, 'd');
    Payload payload(FieldHead(v1::StreamChunk::kDataFieldNumber, size));
    payload.Borrow(data);
    v1::StreamChunk chunk;
    ASSERT_TRUE(chunk.ParseFromString(Joined(payload)));
    EXPECT_EQ(chunk.data(), data);
  }
}

}  // namespace
}  // namespace husk::agent
