#include "agent/guest/channel.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "agent/proto/channel.h"

namespace husk::agent {
namespace {

// The bytes of one connection from the host: marker, nonce, masked requests.
std::string Connection(const std::string& nonce, const std::vector<std::string>& payloads) {
  std::string frames;
  for (std::size_t i = 0; i < payloads.size(); ++i) {
    frames += ttrpc::Encode({.stream_id = static_cast<std::uint32_t>(2 * i + 1),
                             .type = ttrpc::MessageType::kRequest,
                             .flags = 0,
                             .payload = payloads[i]});
  }
  MaskChannelBytes(nonce, 0, frames.data(), frames.size());
  return std::string(kChannelMarker) + nonce + frames;
}

// What the decoder makes of `bytes`: "+nonce" for a connection, "payload" for a request.
std::vector<std::string> Feed(ChannelDecoder& decoder, const std::string& bytes, std::size_t piece) {
  std::vector<std::string> seen;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    decoder.Append(std::string_view(bytes).substr(at, piece));
    while (auto event = decoder.Next()) seen.push_back(event->connected ? "+" + event->nonce : event->request->payload);
  }
  return seen;
}

const std::string kFirst = "0123456789abcdef";
const std::string kSecond = "fedcba9876543210";

TEST(ChannelDecoderTest, FindsRequestsHoweverTheyAreCut) {
  const std::string bytes = "stale" + Connection(kFirst, {"one", std::string(5000, 'x'), ""});
  for (std::size_t piece = 1; piece < 80; ++piece) {
    ChannelDecoder decoder;
    EXPECT_EQ(Feed(decoder, bytes, piece), (std::vector<std::string>{"+" + kFirst, "one", std::string(5000, 'x'), ""}));
  }
}

TEST(ChannelDecoderTest, ABreakAnywhereDoesNotHarmTheNextConnection) {
  const std::string one = Connection(kFirst, {"one"});
  const std::string broken = Connection(kFirst, {"one", "two"});
  const std::string next = Connection(kSecond, {"three", "four"});
  const std::size_t opening = Connection(kFirst, {}).size();
  for (std::size_t cut = 0; cut <= broken.size(); ++cut) {
    std::vector<std::string> expected{"+" + kFirst};
    if (cut >= one.size()) expected.emplace_back("one");
    if (cut == broken.size()) expected.emplace_back("two");
    expected.insert(expected.end(), {"+" + kSecond, "three", "four"});
    for (std::size_t piece = 1; piece < 40; ++piece) {
      ChannelDecoder decoder;
      auto seen = Feed(decoder, broken.substr(0, cut) + next, piece);
      if (cut < opening) {
        // A cut opening may count for a moment; what follows does not mind.
        ASSERT_GE(seen.size(), 3U) << cut;
        seen.erase(seen.begin(), seen.end() - 3);
        EXPECT_EQ(seen, (std::vector<std::string>{"+" + kSecond, "three", "four"})) << cut << " " << piece;
      } else {
        // Nothing of the next one becomes the end of a request.
        EXPECT_EQ(seen, expected) << cut << " " << piece;
      }
    }
  }
}

TEST(ChannelDecoderTest, AMarkerInARequestIsJustBytes) {
  ChannelDecoder decoder;
  const std::string payload = Connection(kSecond, {"forged"});
  EXPECT_EQ(Feed(decoder, Connection(kFirst, {payload}), 5), (std::vector<std::string>{"+" + kFirst, payload}));
}

TEST(ChannelDecoderTest, WhatCouldBeAMarkerWaitsUntilItIsReleased) {
  int waited = 0;
  // The masked last byte runs through all values, the marker's first among them.
  for (int last = 0; last < 256; ++last) {
    for (const std::size_t piece : {std::size_t{3}, std::size_t{1000}}) {
      ChannelDecoder decoder;
      const std::string payload = "request" + std::string(1, static_cast<char>(last));
      auto seen = Feed(decoder, Connection(kFirst, {payload}), piece);
      if (decoder.holds()) {
        ++waited;
        EXPECT_EQ(seen, std::vector<std::string>{"+" + kFirst});
        decoder.Release();
        while (auto event = decoder.Next()) seen.push_back(event->request->payload);
      }
      EXPECT_EQ(seen, (std::vector<std::string>{"+" + kFirst, payload}));
      EXPECT_FALSE(decoder.holds());
      // A marker of which a part was released is one all the same.
      decoder.Append(kChannelMarker.substr(0, 7));
      EXPECT_FALSE(decoder.Next());
      EXPECT_TRUE(decoder.holds());
      decoder.Release();
      EXPECT_FALSE(decoder.Next());
      EXPECT_EQ(Feed(decoder, Connection(kSecond, {"next"}).substr(7), piece),
                (std::vector<std::string>{"+" + kSecond, "next"}));
    }
  }
  EXPECT_EQ(waited, 2);
}

TEST(ChannelDecoderTest, AMalformedFrameLosesTheConnectionUntilTheNext) {
  ChannelDecoder decoder;
  std::string garbage(64, '\xff');
  MaskChannelBytes(kFirst, 0, garbage.data(), garbage.size());
  EXPECT_EQ(Feed(decoder, Connection(kFirst, {}) + garbage, 9), std::vector<std::string>{"+" + kFirst});
  EXPECT_TRUE(decoder.lost());
  EXPECT_EQ(Feed(decoder, Connection(kSecond, {"back"}), 9), (std::vector<std::string>{"+" + kSecond, "back"}));
}

}  // namespace
}  // namespace husk::agent
