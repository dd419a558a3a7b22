#include "images/registry_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <string>

#include "images/decompressor.h"
#include "images/digest.h"
#include "images/testing/archive.h"
#include "images/testing/fake_registry.h"
#include "images/text.h"
#include "images/url.h"

namespace husk::images {
namespace {

using testing::FakeRegistry;
using testing::FakeRequest;
using testing::FakeResponse;
using ::testing::HasSubstr;
using ::testing::Not;

const Context kContext = Context::Background("test");
const std::string kBlob(300'000, 'b');
const Descriptor kDescriptor{.digest = DigestOf(kBlob), .size = kBlob.size()};

RegistryLimits Fast() {
  RegistryLimits limits;
  limits.retry.least_progress = limits.mirror_retry.least_progress = 100;
  limits.retry.first_pause = limits.mirror_retry.first_pause = std::chrono::milliseconds(1);
  limits.retry.longest_pause = limits.mirror_retry.longest_pause = std::chrono::milliseconds(5);
  return limits;
}

StatusOr<std::string> Fetch(const FakeRegistry& registry, const RegistryCredentials& credentials = {}) {
  const Reference reference = *ParseReference(registry.host() + "/app:1");
  RegistryClient client(reference, credentials, *FindEndpoints("", reference), Fast(), [](const std::string&) {});
  HttpClient http;
  return client.FetchBlob(kContext, http, kDescriptor, 1U << 20);
}

TEST(RegistryClientTest, GoesOnWhereItWasCutOff) {
  std::atomic<int> times = 0;
  FakeRegistry resuming([&](const FakeRequest& request) -> FakeResponse {
    const int time = times++;
    if (time == 0) return {.body = kBlob, .cut_at = 1000};
    EXPECT_EQ(request.headers.at("range"), "bytes=1000-");
    if (time == 1) return {.status = 503, .headers = {"Retry-After: 0"}};
    return {.status = 206, .headers = {"Content-Range: bytes 1000-299999/300000"}, .body = kBlob.substr(1000)};
  });
  EXPECT_EQ(*Fetch(resuming), kBlob);
  EXPECT_EQ(resuming.requests().size(), 3U);
  times = 0;
  FakeRegistry without_ranges([&](const FakeRequest&) -> FakeResponse {
    return times++ == 0 ? FakeResponse{.body = kBlob, .cut_at = 1000} : FakeResponse{.body = kBlob};
  });
  EXPECT_EQ(*Fetch(without_ranges), kBlob);
  times = 0;
  FakeRegistry lying([&](const FakeRequest& request) -> FakeResponse {
    if (times++ == 0) return {.body = kBlob, .cut_at = 1000};
    if (!request.headers.contains("range")) return {.body = kBlob};
    return {.status = 206, .headers = {"Content-Range: bytes 0-299999/300000"}, .body = kBlob};
  });
  EXPECT_EQ(*Fetch(lying), kBlob);
}

TEST(RegistryClientTest, GivesUpAndSaysWhy) {
  FakeRegistry busy([](const FakeRequest&) -> FakeResponse { return {.status = 429, .body = "slow down\n"}; });
  const auto refused = Fetch(busy);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("429: slow down"));
  EXPECT_EQ(busy.requests().size(), 5U);
  FakeRegistry missing([](const FakeRequest&) -> FakeResponse { return {.status = 404}; });
  EXPECT_EQ(Fetch(missing).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.requests().size(), 1U);
  FakeRegistry other([](const FakeRequest&) -> FakeResponse { return {.body = std::string(kBlob.size(), 'x')}; });
  EXPECT_EQ(Fetch(other).status().code(), absl::StatusCode::kDataLoss);
  FakeRegistry brief([](const FakeRequest&) -> FakeResponse { return {.body = "short"}; });
  EXPECT_EQ(Fetch(brief).status().code(), absl::StatusCode::kDataLoss);
}

TEST(RegistryClientTest, GetsATokenOnceAndKeepsSecretsToItself) {
  FakeRegistry* self = nullptr;
  FakeRegistry registry([&](const FakeRequest& request) -> FakeResponse {
    if (request.target.starts_with("/token")) {
      if (request.Authorization() != "Basic dTpw") return {.status = 401};
      return {.body = R"({"token":"t0ken"})"};
    }
    if (request.Authorization() == "Bearer t0ken") return {.body = kBlob};
    return {.status = 401,
            .headers = {Concat("WWW-Authenticate: Bearer realm=\"http://", self->host(),
                               "/token\",service=\"s p\",scope=\"repository:app:pull\"")}};
  });
  self = &registry;
  EXPECT_EQ(*Fetch(registry, {.username = "u", .password = "p"}), kBlob);
  EXPECT_EQ(registry.Count("/token?service=s%20p&scope=repository%3Aapp%3Apull"), 1U);
  EXPECT_EQ(*Fetch(registry, {.auth = "dTpw"}), kBlob);
  EXPECT_EQ(*Fetch(registry, {.registry_token = "t0ken"}), kBlob);
  const auto wrong = Fetch(registry, {.username = "u", .password = "secret"});
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(wrong.status().message()), Not(HasSubstr("secret")));
  // Credentials for another server are not shown to this one.
  EXPECT_FALSE(Fetch(registry, {.username = "u", .password = "p", .server_address = "registry.example"}).ok());
  EXPECT_EQ(registry.requests().back().Authorization(), "");
}

TEST(RegistryClientTest, Basic) {
  FakeRegistry registry([&](const FakeRequest& request) -> FakeResponse {
    if (request.Authorization() == "Basic dTpw") return {.body = kBlob};
    return {.status = 401, .headers = {"WWW-Authenticate: Negotiate, Basic realm=\"r\""}};
  });
  EXPECT_EQ(*Fetch(registry, {.username = "u", .password = "p"}), kBlob);
  EXPECT_EQ(Fetch(registry, {.username = "u", .password = "q"}).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Fetch(registry).status().code(), absl::StatusCode::kUnauthenticated);
}

TEST(RegistryClientTest, RedirectsCarryNoAuthorizationElsewhere) {
  FakeRegistry storage([](const FakeRequest&) -> FakeResponse { return {.body = kBlob}; });
  FakeRegistry registry([&](const FakeRequest& request) -> FakeResponse {
    if (request.target == "/same") return {.status = 307, .headers = {"Location: http://" + storage.host() + "/x"}};
    return {.status = 307, .headers = {"Location: /same"}};
  });
  EXPECT_EQ(*Fetch(registry, {.registry_token = "t"}), kBlob);
  EXPECT_EQ(registry.requests()[1].Authorization(), "Bearer t");
  ASSERT_EQ(storage.requests().size(), 1U);
  EXPECT_EQ(storage.requests()[0].Authorization(), "");
}

TEST(RegistryClientTest, RedirectsThatAreNotFollowed) {
  for (const std::string location : {"file:///etc/passwd", "http://192.0.2.1/x", "https://169.254.169.254/latest",
                                     "https://[fe80::1]/", "ftp://a/", "/loop", "http://user:password@127.0.0.1/"}) {
    FakeRegistry registry(
        [&](const FakeRequest&) -> FakeResponse { return {.status = 302, .headers = {"Location: " + location}}; });
    const auto result = Fetch(registry);
    EXPECT_FALSE(result.ok()) << location;
    EXPECT_NE(result.status().code(), absl::StatusCode::kUnavailable) << result.status();
  }
}

TEST(RegistryClientTest, TokenServersThatAreNotAsked) {
  for (const std::string realm : {"file:///etc/passwd", "http://192.0.2.1/t", "https://169.254.169.254/", "relative"}) {
    FakeRegistry registry([&](const FakeRequest&) -> FakeResponse {
      return {.status = 401, .headers = {"WWW-Authenticate: Bearer realm=\"" + realm + "\""}};
    });
    const auto result = Fetch(registry, {.username = "u", .password = "p"});
    EXPECT_THAT(std::string(result.status().message()), HasSubstr("token server")) << realm;
    EXPECT_EQ(registry.requests().size(), 1U);
  }
}

TEST(UrlTest, HttpsNeverLeadsToHttp) {
  const Url https = *ParseUrl("https://registry.example/v2/");
  EXPECT_FALSE(CheckFollow(https, *ParseUrl("http://registry.example/x")).ok());
  EXPECT_FALSE(CheckFollow(https, *ParseUrl("http://127.0.0.1/x")).ok());
  EXPECT_TRUE(CheckFollow(https, *ParseUrl("https://storage.example/x")).ok());
  EXPECT_FALSE(https.SameOrigin(*ParseUrl("https://registry.example:444/")));
  EXPECT_TRUE(https.SameOrigin(*ParseUrl("https://REGISTRY.example:443/")));
}

TEST(UrlTest, RefusesControlCharacters) {
  EXPECT_FALSE(ParseUrl(std::string("https://registry.example/\0x", 27)).ok());
  EXPECT_FALSE(ParseUrl("https://registry.example/\x7f").ok());
  const Url base = *ParseUrl("https://registry.example/");
  EXPECT_FALSE(ResolveUrl(base, "/a\x7f").ok());
  EXPECT_TRUE(ResolveUrl(base, "/a%7f").ok());
}

TEST(TokenTest, MustBeFitForAHeader) {
  EXPECT_EQ(ParseToken(R"({"token":"a","access_token":"b"})"), "a");
  EXPECT_EQ(ParseToken(R"({"token":"","access_token":"b"})"), "b");
  EXPECT_EQ(ParseToken(R"({"token":null,"access_token":"b"})"), "b");
  EXPECT_EQ(ParseToken(R"({"token":"a\r\nb: c"})"), std::nullopt);
  EXPECT_EQ(ParseToken(R"({"token":"a\u0000b"})"), std::nullopt);
  for (const char* json : {"", "[]", "{}", R"({"token":1})", R"({"token":"a")"}) {
    EXPECT_EQ(ParseToken(json), std::nullopt) << json;
  }
}

TEST(ChallengeTest, Parses) {
  const auto challenges = ParseChallenges(R"(Negotiate, BEARER realm="a\"b,c",Service=x, basic realm=r)");
  ASSERT_EQ(challenges.size(), 3U);
  EXPECT_EQ(challenges[1].scheme, "bearer");
  EXPECT_EQ(challenges[1].parameters.at("realm"), "a\"b,c");
  EXPECT_EQ(challenges[1].parameters.at("service"), "x");
  EXPECT_EQ(challenges[2].parameters.at("realm"), "r");
  EXPECT_TRUE(ParseChallenges("").empty());
  EXPECT_TRUE(ParseChallenges("\"").empty());
}

StatusOr<std::string> Decompress(std::string_view input, std::size_t piece) {
  std::string output;
  Decompressor decompressor([&](std::string_view data) {
    output += data;
    return absl::OkStatus();
  });
  while (!input.empty()) {
    HUSK_RETURN_IF_ERROR(decompressor.Write(input.substr(0, piece)));
    input.remove_prefix(std::min(piece, input.size()));
  }
  HUSK_RETURN_IF_ERROR(decompressor.Finish());
  return output;
}

TEST(DecompressorTest, FormatsMembersAndDamage) {
  std::string text;
  for (int i = 0; i < 50'000; ++i) text += std::to_string(i * 7919);
  for (const std::size_t piece : {std::size_t{3}, std::size_t{1000}, std::size_t{1} << 22}) {
    EXPECT_EQ(*Decompress(testing::Gzip(text), piece), text);
    EXPECT_EQ(*Decompress(testing::Gzip(text) + testing::Gzip("") + testing::Gzip("more"), piece), text + "more");
    EXPECT_EQ(*Decompress(testing::Zstd(text), piece), text);
    EXPECT_EQ(*Decompress(testing::Zstd(text) + testing::Zstd("more"), piece), text + "more");
    EXPECT_EQ(*Decompress(text, piece), text);
  }
  EXPECT_EQ(*Decompress("", 1), "");
  EXPECT_EQ(*Decompress("abc", 1), "abc");
  // As zstd:chunked (contents in several frames, its own table at the end) and pzstd (sizes at the beginning) write it.
  const std::string skippable("\x50\x2a\x4d\x18\x04\x00\x00\x00toc!", 12);
  for (const std::size_t piece : {std::size_t{3}, std::size_t{1000}}) {
    EXPECT_EQ(*Decompress(testing::Zstd(text) + testing::Zstd("more") + skippable + skippable, piece), text + "more");
    EXPECT_EQ(*Decompress(skippable + testing::Zstd(text), piece), text);
  }
  for (const std::string& compressed : {testing::Gzip(text), testing::Zstd(text)}) {
    EXPECT_EQ(Decompress(compressed.substr(0, compressed.size() - 1), 4096).status().code(),
              absl::StatusCode::kDataLoss);
    EXPECT_EQ(Decompress(compressed + "junk", 4096).status().code(), absl::StatusCode::kDataLoss);
    std::string damaged = compressed;
    damaged[damaged.size() / 2] ^= 0x55;
    EXPECT_NE(Decompress(damaged, 4096).value_or("damaged"), text);
  }
  // The checksum at a member's end.
  std::string wrong = testing::Gzip(text);
  wrong[wrong.size() - 6] ^= 1;
  EXPECT_EQ(Decompress(wrong, 4096).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace husk::images
