#include "sandbox/port_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace husk::sandbox {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class PortExchangeTest : public ::testing::Test {
 protected:
  // What there is to do; nothing if there is nothing.
  PortExchange::Batch Next() {
    return exchange_.Next(Context::Background().WithTimeout(std::chrono::milliseconds(1)))
        .value_or(PortExchange::Batch());
  }
  // A connection that may be written to.
  void Open(std::uint64_t connection) {
    exchange_.Open(connection, 80);
    ASSERT_EQ(Next().openings.size(), 1U);
    exchange_.Writable(connection);
  }
  PortExchange::Piece OnlyPiece() {
    const auto batch = Next();
    EXPECT_EQ(batch.pieces.size(), 1U);
    return batch.pieces.empty() ? PortExchange::Piece() : batch.pieces[0];
  }

  std::vector<std::string> told_;
  PortExchange exchange_{
      {.output =
           [this](std::uint64_t connection, const std::string& bytes) {
             told_.push_back("output " + std::to_string(connection) + " " + bytes);
           },
       .output_ended = [this](std::uint64_t connection) { told_.push_back("ended " + std::to_string(connection)); },
       .over =
           [this](std::uint64_t connection, const Status& status) {
             told_.push_back("over " + std::to_string(connection) + " " + std::string(status.message()));
           },
       .read_on = [] {}}};
};

TEST_F(PortExchangeTest, InputWaitsForTheConnection) {
  exchange_.Open(1, 80);
  exchange_.Input(1, "early");
  const auto batch = Next();
  ASSERT_EQ(batch.openings.size(), 1U);
  EXPECT_EQ(batch.openings[0].port, 80);
  EXPECT_THAT(batch.pieces, IsEmpty());
  EXPECT_TRUE(Next().empty());
  exchange_.Writable(1);
  EXPECT_EQ(OnlyPiece().bytes, "early");
}

TEST_F(PortExchangeTest, WhatIsNotTakenIsGivenAgainOnceThereIsRoom) {
  Open(1);
  exchange_.Input(1, "0123456789");
  exchange_.EndInput(1);
  PortExchange::Piece piece = OnlyPiece();
  EXPECT_TRUE(piece.end);
  exchange_.Taken(piece, 4);
  EXPECT_TRUE(Next().empty());
  exchange_.Writable(1);
  piece = OnlyPiece();
  EXPECT_EQ(piece.offset, 4U);
  EXPECT_EQ(piece.bytes, "456789");
  // The news of room may overtake the answer that there is none.
  exchange_.Writable(1);
  exchange_.Taken(piece, 4);
  piece = OnlyPiece();
  exchange_.Taken(piece, 10);
  EXPECT_TRUE(Next().empty());
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(PortExchangeTest, AnOffsetThatCannotBeIsHeldWithinThePiece) {
  Open(1);
  exchange_.Input(1, "0123");
  const PortExchange::Piece piece = OnlyPiece();
  exchange_.Taken(piece, 1'000'000);
  exchange_.Input(1, "45");
  EXPECT_EQ(OnlyPiece().offset, 4U);
}

TEST_F(PortExchangeTest, IsOverWhenBothDirectionsHaveEnded) {
  Open(1);
  exchange_.EndInput(1);
  const PortExchange::Piece piece = OnlyPiece();
  EXPECT_TRUE(piece.end);
  exchange_.Taken(piece, 0);
  EXPECT_EQ(*exchange_.Output(1, 0, "bye", true), 3U);
  EXPECT_THAT(told_, ElementsAre("output 1 bye", "ended 1", "over 1 "));
  EXPECT_THAT(Next().closed, ElementsAre(1));
  EXPECT_TRUE(absl::IsNotFound(exchange_.Output(1, 3, "", true).status()));
}

TEST_F(PortExchangeTest, OutputMayEndFirst) {
  Open(1);
  EXPECT_TRUE(exchange_.Output(1, 0, "", true).ok());
  EXPECT_THAT(told_, ElementsAre("ended 1"));
  exchange_.Input(1, "still");
  exchange_.EndInput(1);
  exchange_.Taken(OnlyPiece(), 5);
  EXPECT_THAT(told_, ElementsAre("ended 1", "over 1 "));
}

TEST_F(PortExchangeTest, RepeatedOutputIsTakenOnce) {
  Open(1);
  EXPECT_EQ(*exchange_.Output(1, 0, "abc", false), 3U);
  EXPECT_EQ(*exchange_.Output(1, 0, "abc", false), 3U);
  EXPECT_EQ(*exchange_.Output(1, 1, "bcd", true), 4U);
  EXPECT_EQ(*exchange_.Output(1, 4, "more", true), 4U);
  EXPECT_TRUE(absl::IsDataLoss(exchange_.Output(1, 6, "x", false).status()));
  EXPECT_THAT(told_, ElementsAre("output 1 abc", "output 1 d", "ended 1"));
}

TEST_F(PortExchangeTest, WhatIsToldAgainIsNoNews) {
  Open(1);
  EXPECT_TRUE(exchange_.IsNews(1, 1, 0));
  EXPECT_FALSE(exchange_.IsNews(1, 1, 0));
  EXPECT_TRUE(exchange_.IsNews(1, 1, 3));
  ASSERT_TRUE(exchange_.Output(1, 0, "abc", false).ok());
  EXPECT_FALSE(exchange_.IsNews(1, 1, 3));
  EXPECT_FALSE(exchange_.IsNews(1, 0, 3));
  EXPECT_TRUE(exchange_.IsNews(1, 2, 3));
  EXPECT_FALSE(exchange_.IsNews(2, 1, 1));
}

TEST_F(PortExchangeTest, AFailureAfterTheEndIsNone) {
  Open(1);
  Open(2);
  EXPECT_TRUE(exchange_.Output(1, 0, "", true).ok());
  exchange_.Failed(1, absl::UnavailableError("reset"));
  exchange_.Failed(2, absl::UnavailableError("reset"));
  exchange_.Failed(3, absl::UnavailableError("unknown"));
  EXPECT_THAT(told_, ElementsAre("ended 1", "over 1 ", "over 2 reset"));
}

TEST_F(PortExchangeTest, OneThatWaitsDoesNotHoldUpTheOthers) {
  Open(1);
  Open(2);
  exchange_.Input(1, std::string(PortExchange::kInputLimit - 1, 'x'));
  const PortExchange::Piece piece = OnlyPiece();
  EXPECT_EQ(piece.bytes.size(), PortExchange::kLargestInput);
  exchange_.Taken(piece, 0);
  exchange_.Input(2, "y");
  EXPECT_TRUE(exchange_.input_full());
  EXPECT_EQ(OnlyPiece().connection, 2U);
  // The bytes of one that goes are no longer waited for.
  exchange_.Close(1);
  EXPECT_FALSE(exchange_.input_full());
  EXPECT_THAT(Next().closed, ElementsAre(1));
}

TEST_F(PortExchangeTest, ManyConnectionsShareABatch) {
  constexpr std::uint64_t kCount = 1000;
  for (std::uint64_t number = 1; number <= kCount; ++number) exchange_.Open(number, 80);
  EXPECT_EQ(Next().openings.size(), kCount);
  for (std::uint64_t number = 1; number <= kCount; ++number) {
    exchange_.Writable(number);
    exchange_.Input(number, "hello");
  }
  EXPECT_EQ(Next().pieces.size(), kCount);
}

TEST_F(PortExchangeTest, OneThatWasNeverGivenOutNeedNotBeClosed) {
  exchange_.Open(1, 80);
  exchange_.Close(1);
  EXPECT_TRUE(Next().empty());
}

TEST_F(PortExchangeTest, EndsWithTheLastConnection) {
  exchange_.Open(1, 80);
  exchange_.NoMore();
  EXPECT_FALSE(exchange_.Next(Context::Background())->empty());
  exchange_.Failed(1, absl::UnavailableError("nobody listens"));
  EXPECT_THAT(exchange_.Next(Context::Background())->closed, ElementsAre(1));
  EXPECT_TRUE(exchange_.Next(Context::Background())->empty());
}

TEST_F(PortExchangeTest, OutputWaitsForTheClient) {
  Open(1);
  const Context moment = Context::Background().WithTimeout(std::chrono::milliseconds(1));
  EXPECT_TRUE(exchange_.AwaitRoom(moment).ok());
  const std::string much(PortExchange::kOutputLimit, 'x');
  EXPECT_TRUE(exchange_.Output(1, 0, much, false).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(exchange_.AwaitRoom(moment)));
  exchange_.Sent(1);
  EXPECT_TRUE(exchange_.AwaitRoom(Context::Background()).ok());
}

}  // namespace
}  // namespace husk::sandbox
