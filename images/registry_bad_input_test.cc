// Registries that misbehave: REG-01 to REG-04 of the catalogue of bad input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "images/digest.h"
#include "images/image_service.h"
#include "images/registry_client.h"
#include "images/testing/archive.h"
#include "images/testing/certificates.h"
#include "images/testing/disk_check.h"
#include "images/testing/fake_registry.h"
#include "images/text.h"

namespace husk::images {
namespace {

using testing::FakeImage;
using testing::FakeRegistry;
using testing::FakeRequest;
using testing::FakeResponse;
using testing::File;
using ::testing::HasSubstr;
using testing::MakeTar;
using ::testing::Not;

const Context kContext = Context::Background("test");
const std::string kBlob(300'000, 'b');
const Descriptor kDescriptor{.digest = DigestOf(kBlob), .size = kBlob.size()};
const RegistryCredentials kCredentials{.username = "user", .password = "p4ssword"};
constexpr char kBasic[] = "Basic dXNlcjpwNHNzd29yZA==";

class RegistryBadInputTest : public ::testing::Test {
 protected:
  // Small enough that whatever is not bounded by them hangs for the test's whole time.
  static RegistryLimits Small() {
    RegistryLimits limits;
    limits.http = {.connect = std::chrono::milliseconds(2000), .silence = std::chrono::seconds(1)};
    limits.retry = {.attempts = 3,
                    .total_attempts = 4,
                    .least_progress = 1000,
                    .first_pause = std::chrono::milliseconds(1),
                    .longest_pause = std::chrono::milliseconds(5)};
    return limits;
  }

  static std::unique_ptr<RegistryClient> Client(const FakeRegistry& registry,
                                                const RegistryCredentials& credentials = {}) {
    const Reference reference = *ParseReference(registry.host() + "/app:1");
    return std::make_unique<RegistryClient>(reference, credentials, *FindEndpoints("", reference), Small(),
                                            [](const std::string&) {});
  }
  Status FetchManifest(const FakeRegistry& registry) {
    return Client(registry)->FetchManifest(kContext, http_, "1").status();
  }
  StatusOr<std::string> FetchBlob(const FakeRegistry& registry, const RegistryCredentials& credentials = {}) {
    return Client(registry, credentials)->FetchBlob(kContext, http_, kDescriptor, kBlob.size());
  }

  HttpClient http_;
  std::atomic<int> registry_requests_ = 0;
};

TEST_F(RegistryBadInputTest, Reg01AuthorizationStaysWithItsHost) {
  FakeRegistry* home = nullptr;
  FakeRegistry elsewhere([&](const FakeRequest& request) -> FakeResponse {
    // And back again: what was dropped stays dropped.
    if (request.target == "/there") return {.status = 307, .headers = {"Location: http://" + home->host() + "/back"}};
    return {.body = kBlob};
  });
  FakeRegistry registry([&](const FakeRequest& request) -> FakeResponse {
    if (request.target == "/back") return {.body = kBlob};
    if (request.target == "/here") {
      return {.status = 307, .headers = {"Location: http://" + elsewhere.host() + "/there"}};
    }
    if (request.Authorization().empty()) {
      return {.status = 401, .headers = {"WWW-Authenticate: Basic realm=\"r\""}};
    }
    return {.status = 307, .headers = {"Location: /here"}};
  });
  home = &registry;
  EXPECT_EQ(*FetchBlob(registry, kCredentials), kBlob);
  ASSERT_EQ(registry.requests().size(), 4U);
  EXPECT_EQ(registry.requests()[1].Authorization(), kBasic);
  EXPECT_EQ(registry.requests()[2].Authorization(), kBasic);
  EXPECT_EQ(registry.requests()[3].Authorization(), "");
  ASSERT_EQ(elsewhere.requests().size(), 1U);
  EXPECT_EQ(elsewhere.requests()[0].Authorization(), "");
}

TEST_F(RegistryBadInputTest, Reg01NoRedirectFromTlsToPlainHttp) {
  const testing::TestCertificate authority = testing::MakeAuthority("authority");
  FakeRegistry plain([](const FakeRequest&) -> FakeResponse { return {.body = kBlob}; });
  FakeRegistry registry(
      [&](const FakeRequest&) -> FakeResponse {
        return {.status = 302, .headers = {"Location: http://" + plain.host() + "/blob?X-Signature=s3cret"}};
      },
      testing::FakeTls{.server = testing::MakeCertificate("server", authority)});
  const Reference reference = *ParseReference(registry.host() + "/app:1");
  auto tls = std::make_shared<TlsSettings>();
  tls->authorities = authority.certificate;
  RegistryEndpoint endpoint;
  endpoint.base = "https://" + registry.host() + "/v2";
  endpoint.headers = {"X-Private: header"};
  endpoint.tls = tls;
  RegistryClient client(reference, kCredentials, {endpoint}, Small(), [](const std::string&) {});
  const auto blob = client.FetchBlob(kContext, http_, kDescriptor, kBlob.size());
  EXPECT_EQ(blob.status().code(), absl::StatusCode::kPermissionDenied) << blob.status();
  EXPECT_THAT(std::string(blob.status().message()), HasSubstr(plain.host() + "/blob: plain HTTP"));
  EXPECT_THAT(std::string(blob.status().message()), Not(HasSubstr("s3cret")));
  ASSERT_EQ(registry.requests().size(), 1U);
  EXPECT_EQ(registry.requests()[0].headers.at("x-private"), "header");
  EXPECT_TRUE(plain.requests().empty());
}

TEST_F(RegistryBadInputTest, Reg01PrivateHeadersStayToo) {
  FakeRegistry storage([](const FakeRequest&) -> FakeResponse { return {.body = kBlob}; });
  FakeRegistry registry([&](const FakeRequest&) -> FakeResponse {
    return {.status = 307, .headers = {"Location: http://" + storage.host() + "/"}};
  });
  RegistryEndpoint endpoint;
  endpoint.base = "http://" + registry.host() + "/v2";
  endpoint.headers = {"X-Private: header"};
  endpoint.authorization = "Bearer mirror-token";
  RegistryClient client(*ParseReference("registry.example/app:1"), {}, {endpoint}, Small(), [](const std::string&) {});
  EXPECT_EQ(*client.FetchBlob(kContext, http_, kDescriptor, kBlob.size()), kBlob);
  EXPECT_EQ(registry.requests()[0].Authorization(), "Bearer mirror-token");
  EXPECT_EQ(registry.requests()[0].headers.at("x-private"), "header");
  EXPECT_EQ(storage.requests()[0].Authorization(), "");
  EXPECT_FALSE(storage.requests()[0].headers.contains("x-private"));
}

TEST_F(RegistryBadInputTest, Reg02TokenRealmsElsewhere) {
  for (const std::string realm :
       {"file:///etc/passwd", "http://192.0.2.1/token", "https://169.254.169.254/latest/meta-data",
        "http://169.254.169.254/token", "https://[fe80::1]/", "https://[::ffff:169.254.169.254]/",
        "gopher://127.0.0.1/", "http://user:p4ss@127.0.0.1/token", ""}) {
    FakeRegistry registry([&](const FakeRequest&) -> FakeResponse {
      return {.status = 401, .headers = {"WWW-Authenticate: Bearer realm=\"" + realm + "\",service=\"s\""}};
    });
    const auto blob = FetchBlob(registry, kCredentials);
    EXPECT_FALSE(blob.ok()) << realm;
    EXPECT_NE(blob.status().code(), absl::StatusCode::kUnavailable) << blob.status();
    EXPECT_THAT(std::string(blob.status().message()), HasSubstr("token server")) << realm;
    EXPECT_THAT(std::string(blob.status().message()), Not(HasSubstr("p4ss"))) << realm;
    ASSERT_EQ(registry.requests().size(), 1U);
    EXPECT_EQ(registry.requests()[0].Authorization(), "");
  }
}

TEST_F(RegistryBadInputTest, Reg02ForeignLayersAreNotFetchedElsewhere) {
  FakeImage image;
  image.AddLayer(MakeTar({File("file")}));
  image.Finish("app", "1");
  FakeRegistry foreign([&](const FakeRequest&) -> FakeResponse { return {.body = image.layers[0].compressed}; });
  const std::string blob = image.BlobTarget(0);
  image.answers.erase(blob);
  std::string manifest = image.manifest;
  const std::string urls = Concat(R"("urls":["http://)", foreign.host(), R"(/layer","file:///etc/passwd"],)");
  manifest.insert(manifest.rfind("\"digest\""), urls);
  image.answers["/v2/app/manifests/1"].body = manifest;
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  const testing::TemporaryDirectory directory;
  const auto service = *NewImageService({.directory = directory.path()});
  const auto pulled = service->Pull(kContext, registry.host() + "/app:1", {}, nullptr);
  EXPECT_EQ(pulled.status().code(), absl::StatusCode::kNotFound) << pulled.status();
  EXPECT_THAT(std::string(pulled.status().message()), HasSubstr(blob));
  EXPECT_TRUE(foreign.requests().empty());
}

TEST_F(RegistryBadInputTest, Reg03SlowLoris) {
  FakeRegistry slow([](const FakeRequest&) -> FakeResponse { return {.body = kBlob, .milliseconds_per_byte = 20}; });
  const Status manifest = FetchManifest(slow);
  EXPECT_EQ(manifest.code(), absl::StatusCode::kUnavailable) << manifest;
  EXPECT_THAT(std::string(manifest.message()), HasSubstr("GET http://" + slow.host()));
  EXPECT_EQ(slow.requests().size(), 3U);
  // Some bytes of the blob arrive each time, but too few to count.
  const auto blob = FetchBlob(slow);
  EXPECT_EQ(blob.status().code(), absl::StatusCode::kUnavailable) << blob.status();
  EXPECT_EQ(slow.requests().size(), 6U);
}

TEST_F(RegistryBadInputTest, Reg03Silence) {
  FakeRegistry silent([](const FakeRequest&) -> FakeResponse { return {.silent = true}; });
  EXPECT_EQ(FetchManifest(silent).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(silent.requests().size(), 3U);
}

TEST_F(RegistryBadInputTest, Reg03EndlessBodies) {
  FakeRegistry endless([](const FakeRequest&) -> FakeResponse { return {.body = kBlob, .endless = true}; });
  const Status manifest = FetchManifest(endless);
  EXPECT_EQ(manifest.code(), absl::StatusCode::kInvalidArgument) << manifest;
  EXPECT_THAT(std::string(manifest.message()), HasSubstr("larger than 4 MiB"));
  const auto blob = FetchBlob(endless);
  EXPECT_EQ(blob.status().code(), absl::StatusCode::kDataLoss) << blob.status();
  EXPECT_THAT(std::string(blob.status().message()), HasSubstr("more than the expected 300000 bytes"));
  EXPECT_EQ(endless.requests().size(), 2U);
  FakeRegistry refusing(
      [](const FakeRequest&) -> FakeResponse { return {.status = 404, .body = kBlob, .endless = true}; });
  EXPECT_EQ(FetchManifest(refusing).code(), absl::StatusCode::kNotFound);
  FakeRegistry tokens([&](const FakeRequest& request) -> FakeResponse {
    if (request.target.starts_with("/token")) return {.body = kBlob, .endless = true};
    return {.status = 401,
            .headers = {"WWW-Authenticate: Bearer realm=\"http://" + request.headers.at("host") + "/token\""}};
  });
  EXPECT_THAT(std::string(FetchManifest(tokens).message()), HasSubstr("exceeds 1 MiB"));
}

TEST_F(RegistryBadInputTest, Reg03EndlessHeaders) {
  std::vector<std::string> headers(100'000, "X-Header: again");
  FakeRegistry registry([&](const FakeRequest&) -> FakeResponse { return {.headers = headers, .body = kBlob}; });
  EXPECT_FALSE(FetchManifest(registry).ok());
  FakeRegistry redirects(
      [](const FakeRequest&) -> FakeResponse { return {.status = 302, .headers = {"Location: /x"}}; });
  EXPECT_THAT(std::string(FetchManifest(redirects).message()), HasSubstr("more than 5 redirects"));
  EXPECT_EQ(redirects.requests().size(), 6U);
}

TEST_F(RegistryBadInputTest, Reg03FalseRanges) {
  struct Lie {
    std::string content_range;
    std::string body;
  };
  // Ranges that were not asked for; at last the whole, whatever was asked for.
  const std::vector<Lie> lies = {{"Content-Range: bytes 0-299999/300000", kBlob},
                                 {"Content-Range: bytes 2000-299999/300000", kBlob.substr(2000)},
                                 {"Content-Range: garbage", kBlob.substr(1000)},
                                 {"X-None: 1", kBlob.substr(1000)}};
  for (const Lie& lie : lies) {
    FakeRegistry registry([&](const FakeRequest& request) -> FakeResponse {
      if (request.headers.contains("range")) return {.status = 206, .headers = {lie.content_range}, .body = lie.body};
      return {.body = kBlob, .cut_at = registry_requests_++ == 0 ? 1000 : std::string::npos};
    });
    registry_requests_ = 0;
    const auto blob = FetchBlob(registry);
    ASSERT_TRUE(blob.ok()) << lie.content_range << blob.status();
    EXPECT_EQ(*blob, kBlob);
    EXPECT_EQ(registry.requests().size(), 3U);
  }
  // Says the right thing and sends another: the digest tells.
  FakeRegistry registry([&](const FakeRequest& request) -> FakeResponse {
    if (!request.headers.contains("range")) return {.body = kBlob, .cut_at = 1000};
    return {.status = 206, .headers = {"Content-Range: bytes 1000-299999/300000"}, .body = std::string(299'000, 'x')};
  });
  EXPECT_EQ(FetchBlob(registry).status().code(), absl::StatusCode::kDataLoss);
  // A 206 that nobody asked for, for ever.
  FakeRegistry partial([](const FakeRequest&) -> FakeResponse {
    return {.status = 206, .headers = {"Content-Range: bytes 0-299999/300000"}, .body = kBlob};
  });
  EXPECT_EQ(FetchBlob(partial).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(partial.requests().size(), 3U);
}

TEST_F(RegistryBadInputTest, Reg03AStormOfTooManyRequests) {
  for (const std::string retry_after :
       {"3600", "0", "-5", "99999999999999999999", "Fri, 31 Dec 2100 23:59:59 GMT", "soon"}) {
    FakeRegistry registry([&](const FakeRequest&) -> FakeResponse {
      return {.status = 429, .headers = {"Retry-After: " + retry_after}, .body = "slow down"};
    });
    const Status manifest = FetchManifest(registry);
    EXPECT_EQ(manifest.code(), absl::StatusCode::kUnavailable) << manifest;
    EXPECT_THAT(std::string(manifest.message()), HasSubstr("429: slow down"));
    EXPECT_EQ(registry.requests().size(), 3U);
  }
  // A storm that passes.
  FakeRegistry passing([&](const FakeRequest&) -> FakeResponse {
    if (registry_requests_++ < 2) return {.status = 503, .headers = {"Retry-After: 1"}};
    return {.body = kBlob};
  });
  registry_requests_ = 0;
  EXPECT_EQ(*FetchBlob(passing), kBlob);
}

TEST_F(RegistryBadInputTest, Reg03ResetsInMidLayer) {
  const auto rest = [](const FakeRequest& request) -> FakeResponse {
    const auto range = request.headers.find("range");
    if (range == request.headers.end()) return {.body = kBlob};
    const std::size_t start = std::stoul(range->second.substr(6));
    return {.status = 206,
            .headers = {Concat("Content-Range: bytes ", start, "-299999/300000")},
            .body = kBlob.substr(start)};
  };
  // Three resets, each after progress: more than fail in a row.
  FakeRegistry registry([&](const FakeRequest& request) {
    FakeResponse response = rest(request);
    if (registry_requests_++ < 3) response.cut_at = 50'000, response.reset = true;
    return response;
  });
  registry_requests_ = 0;
  EXPECT_EQ(*FetchBlob(registry), kBlob);
  EXPECT_EQ(registry.requests().size(), 4U);
  EXPECT_TRUE(registry.requests()[3].headers.contains("range"));
  // For ever: bounded by the number of attempts, though each makes progress.
  FakeRegistry always([&](const FakeRequest& request) {
    FakeResponse response = rest(request);
    response.cut_at = 2000;
    response.reset = true;
    return response;
  });
  const auto blob = FetchBlob(always);
  EXPECT_EQ(blob.status().code(), absl::StatusCode::kUnavailable) << blob.status();
  EXPECT_THAT(std::string(blob.status().message()), HasSubstr("gave up after 4 attempts"));
  EXPECT_EQ(always.requests().size(), 4U);
}

// --- REG-04

class RegistrySecretsTest : public RegistryBadInputTest {
 protected:
  RegistrySecretsTest() {
    image_.AddLayer(MakeTar({File("file")}));
    image_.Finish("app", "1");
  }

  const testing::TemporaryDirectory directory_;
  const std::unique_ptr<ImageService> service_ = *NewImageService({.directory = directory_.path()});
  FakeImage image_;
};

TEST_F(RegistrySecretsTest, Reg04ASecretServesItsOwnPullOnly) {
  FakeRegistry registry([&](const FakeRequest& request) -> FakeResponse {
    if (request.target.starts_with("/token")) {
      if (request.Authorization() != kBasic) return {.status = 401};
      return {.body = R"({"token":"first-token"})"};
    }
    if (request.Authorization() == "Bearer first-token") return image_.Answer(request.target);
    return {.status = 401,
            .headers = {"WWW-Authenticate: Bearer realm=\"http://" + request.headers.at("host") + "/token\""}};
  });
  const std::string reference = registry.host() + "/app:1";
  const auto first = service_->Pull(kContext, reference, kCredentials, nullptr);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::size_t before = registry.requests().size();
  for (const std::string& name : {reference, registry.host() + "/app@" + image_.manifest_digest}) {
    for (const RegistryCredentials& other : {RegistryCredentials(), RegistryCredentials{.username = "other"}}) {
      const auto second = service_->Pull(kContext, name, other, nullptr);
      EXPECT_EQ(second.status().code(), absl::StatusCode::kUnauthenticated) << second.status();
    }
  }
  for (std::size_t i = before; i < registry.requests().size(); ++i) {
    EXPECT_THAT(registry.requests()[i].Authorization(), Not(HasSubstr("first-token")));
    EXPECT_NE(registry.requests()[i].Authorization(), kBasic);
  }
  // What is there stays there, for the kubelet to decide about.
  EXPECT_TRUE((*service_->Find(reference)).has_value());
}

TEST_F(RegistrySecretsTest, Reg04NoSecretInErrorsEvenIfTheRegistryEchoesIt) {
  FakeRegistry registry([&](const FakeRequest& request) -> FakeResponse {
    const std::string said = request.Authorization();
    if (said.empty()) return {.status = 401, .headers = {"WWW-Authenticate: Basic realm=\"r\""}};
    return {.status = 403, .body = "denied: " + said + " of user:p4ssword, id-s3cret, r3g-token"};
  });
  RegistryCredentials credentials = kCredentials;
  credentials.identity_token = "id-s3cret";
  const auto pulled = service_->Pull(kContext, registry.host() + "/app:1", credentials, nullptr);
  EXPECT_EQ(pulled.status().code(), absl::StatusCode::kUnauthenticated);
  const std::string message(pulled.status().message());
  EXPECT_THAT(message, HasSubstr("denied: Basic [secret] of user:[secret], [secret]"));
  const auto by_token = service_->Pull(kContext, registry.host() + "/app:1", {.registry_token = "r3g-token"}, nullptr);
  EXPECT_THAT(std::string(by_token.status().message()), Not(HasSubstr("r3g-token")));
}

}  // namespace
}  // namespace husk::images
