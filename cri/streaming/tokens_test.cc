#include "cri/streaming/tokens.h"

#include <gtest/gtest.h>

#include <set>

namespace husk::cri {
namespace {

class TokensTest : public ::testing::Test {
 protected:
  TokenStore::Clock::time_point now_ = TokenStore::Clock::now();
  TokenStore tokens_{[this] { return now_; }};
};

TEST_F(TokensTest, ATokenIsUsedOnce) {
  const auto token = tokens_.Add({.container_id = "a"});
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ(tokens_.Take(*token).value().container_id, "a");
  EXPECT_FALSE(tokens_.Take(*token));
}

TEST_F(TokensTest, ATokenLivesForAMinute) {
  const auto token = tokens_.Add({});
  const auto other = tokens_.Add({});
  now_ += TokenStore::kLifetime - std::chrono::milliseconds(1);
  EXPECT_TRUE(tokens_.Take(*token));
  now_ += std::chrono::milliseconds(1);
  EXPECT_FALSE(tokens_.Take(*other));
}

TEST_F(TokensTest, TokensAreLongAndSafeInUrls) {
  std::set<std::string> seen;
  for (int count = 0; count < 200; ++count) {
    const auto token = tokens_.Add({});
    ASSERT_TRUE(token.ok());
    EXPECT_EQ(token->size(), 43U);
    EXPECT_EQ(token->find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"),
              std::string::npos);
    EXPECT_TRUE(seen.insert(*token).second);
  }
}

TEST_F(TokensTest, UnknownTokensAreNothing) {
  ASSERT_TRUE(tokens_.Add({}).ok());
  EXPECT_FALSE(tokens_.Take(""));
  EXPECT_FALSE(tokens_.Take(std::string(43, 'A')));
}

TEST_F(TokensTest, AThousandAtMostUntilTheyExpire) {
  for (std::size_t count = 0; count < TokenStore::kMaximum; ++count) ASSERT_TRUE(tokens_.Add({}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(tokens_.Add({}).status()));
  now_ += TokenStore::kLifetime;
  EXPECT_TRUE(tokens_.Add({}).ok());
}

}  // namespace
}  // namespace husk::cri
