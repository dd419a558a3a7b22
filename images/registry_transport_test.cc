// How registries are reached: TLS by hosts.toml and by Docker's certificate files, proxies, connections, waits, tokens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "images/digest.h"
#include "images/registry_client.h"
#include "images/testing/certificates.h"
#include "images/testing/disk_check.h"
#include "images/testing/fake_registry.h"
#include "images/text.h"
#include "images/url.h"

namespace husk::images {
namespace {

using testing::FakeRegistry;
using testing::FakeRequest;
using testing::FakeResponse;
using testing::FakeTls;
using ::testing::HasSubstr;
using testing::MakeAuthority;
using testing::MakeCertificate;
using testing::TestCertificate;

const Context kContext = Context::Background("test");
const std::string kManifest = R"({"schemaVersion":2})";

FakeResponse Good(const FakeRequest& /*request*/) {
  return {.body = kManifest};
}

class RegistryTransportTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path whole = std::filesystem::path(directory_.path()) / path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
  }
  StatusOr<std::string> Fetch(const std::string& name, const RegistryCredentials& credentials = {}) {
    const Reference reference = *ParseReference(name);
    HUSK_ASSIGN_OR_RETURN(std::vector<RegistryEndpoint> endpoints, FindEndpoints(directory_.path(), reference));
    RegistryLimits limits;
    limits.retry = {
        .attempts = 2, .first_pause = std::chrono::milliseconds(1), .longest_pause = std::chrono::milliseconds(5)};
    RegistryClient client(reference, credentials, std::move(endpoints), limits, [](const std::string&) {});
    HUSK_ASSIGN_OR_RETURN(RegistryClient::Document document, client.FetchManifest(kContext, http_, "1"));
    return document.body;
  }

  const testing::TemporaryDirectory directory_;
  const TestCertificate authority_ = MakeAuthority("authority");
  HttpClient http_;
};

TEST_F(RegistryTransportTest, TlsByAnAuthorityOfHostsToml) {
  FakeRegistry registry(Good, FakeTls{.server = MakeCertificate("server", authority_)});
  Write("ca.pem", authority_.certificate);
  Write(registry.host() + "/hosts.toml", "ca = [\"../ca.pem\"]\n");
  const auto fetched = Fetch(registry.host() + "/app:1");
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ(*fetched, kManifest);
}

TEST_F(RegistryTransportTest, TlsByDockersFiles) {
  const TestCertificate client = MakeCertificate("from docker's files", authority_);
  FakeRegistry registry(
      Good, FakeTls{.server = MakeCertificate("server", authority_), .client_authority = authority_.certificate});
  Write(registry.host() + "/ca.crt", authority_.certificate);
  Write(registry.host() + "/client.cert", client.certificate);
  EXPECT_THAT(std::string(Fetch(registry.host() + "/app:1").status().message()), HasSubstr("client.key: No such file"));
  Write(registry.host() + "/client.key", client.key);
  const auto fetched = Fetch(registry.host() + "/app:1");
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ(registry.requests()[0].client_name, "from docker's files");
}

TEST_F(RegistryTransportTest, UnknownAuthoritiesAreRefusedUnlessAllAreTaken) {
  FakeRegistry registry(Good, FakeTls{.server = MakeCertificate("server", authority_)});
  Write("other.pem", MakeAuthority("other").certificate);
  for (const std::string& settings : {Concat("server = \"https://", registry.host(), "\"\n"),
                                      std::string("ca = \"../other.pem\"\n"), std::string("skip_verify = false\n")}) {
    Write(registry.host() + "/hosts.toml", settings);
    const auto refused = Fetch(registry.host() + "/app:1");
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition) << refused.status();
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("certificate")) << settings;
  }
  Write(registry.host() + "/hosts.toml", "skip_verify = true\n");
  EXPECT_EQ(*Fetch(registry.host() + "/app:1"), kManifest);
}

TEST_F(RegistryTransportTest, TheClientCertificateThatTheServerKnows) {
  const TestCertificate other = MakeAuthority("other authority");
  const TestCertificate wrong = MakeCertificate("wrong", other);
  const TestCertificate right = MakeCertificate("right", authority_);
  FakeRegistry registry(
      Good, FakeTls{.server = MakeCertificate("server", authority_), .client_authority = authority_.certificate});
  const std::string directory = registry.host() + "/";
  Write(directory + "ca.pem", authority_.certificate);
  Write(directory + "wrong.pem", wrong.certificate);
  Write(directory + "wrong.key", wrong.key);
  Write(directory + "both.pem", right.certificate + right.key);
  for (const std::string client : {"\"both.pem\"", "[\"both.pem\"]", "[[\"wrong.pem\", \"wrong.key\"], \"both.pem\"]",
                                   "[[\"both.pem\", \"\"], [\"wrong.pem\", \"wrong.key\"]]"}) {
    Write(directory + "hosts.toml", "ca = \"ca.pem\"\nclient = " + client + "\n");
    const auto fetched = Fetch(registry.host() + "/app:1");
    ASSERT_TRUE(fetched.ok()) << client << fetched.status();
    EXPECT_EQ(registry.requests().back().client_name, "right");
  }
  Write(directory + "hosts.toml", "ca = \"ca.pem\"\nclient = [[\"wrong.pem\", \"both.pem\"]]\n");
  EXPECT_THAT(std::string(Fetch(registry.host() + "/app:1").status().message()),
              HasSubstr("hosts.toml:2: the key in "));
  Write(directory + "hosts.toml", "ca = \"ca.pem\"\nclient = [[\"wrong.pem\", \"wrong.key\"]]\n");
  EXPECT_FALSE(Fetch(registry.host() + "/app:1").ok());
  Write(directory + "hosts.toml", "ca = \"ca.pem\"\n");
  EXPECT_FALSE(Fetch(registry.host() + "/app:1").ok());
}

TEST_F(RegistryTransportTest, ARedirectElsewhereShowsNoClientCertificate) {
  const TestCertificate client = MakeCertificate("client", authority_);
  const FakeTls tls{.server = MakeCertificate("server", authority_), .client_authority = authority_.certificate};
  FakeRegistry storage(Good, tls);
  FakeRegistry open_storage(Good, FakeTls{.server = tls.server});
  std::string target = open_storage.host();
  FakeRegistry registry(
      [&](const FakeRequest&) -> FakeResponse {
        return {.status = 307, .headers = {"Location: https://" + target + "/"}};
      },
      tls);
  Write(registry.host() + "/pair.pem", client.certificate + client.key);
  Write(registry.host() + "/ca.pem", authority_.certificate);
  Write(registry.host() + "/hosts.toml", "ca = \"ca.pem\"\nclient = \"pair.pem\"\n");
  // The authority counts there too.
  const auto fetched = Fetch(registry.host() + "/app:1");
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  target = storage.host();
  EXPECT_FALSE(Fetch(registry.host() + "/app:1").ok());
  EXPECT_TRUE(storage.requests().empty());
}

TEST_F(RegistryTransportTest, OneConnectionForMany) {
  FakeRegistry registry(Good, FakeTls{.server = MakeCertificate("server", authority_)});
  Write(registry.host() + "/ca.crt", authority_.certificate);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(*Fetch(registry.host() + "/app:1"), kManifest);
  EXPECT_EQ(registry.requests().back().connection, 1);
}

TEST_F(RegistryTransportTest, PlainHttpElsewhereByHostsTomlAndThroughAProxy) {
  FakeRegistry proxy([](const FakeRequest& request) -> FakeResponse {
    if (request.target == "http://registry.invalid:5000/v2/app/manifests/1") {
      return {.status = 307, .headers = {"Location: /v2/app/manifests/there"}};
    }
    if (request.target == "http://registry.invalid:5000/v2/app/manifests/there") return {.body = kManifest};
    return {.status = 404};
  });
  FakeRegistry direct(Good);
  Write("registry.invalid:5000/hosts.toml", "server = \"http://registry.invalid:5000\"\n");
  for (const char* const variable : {"http_proxy", "HTTP_PROXY"}) {
    setenv(variable, Concat("http://", proxy.host()).c_str(), 1);
    const auto fetched = Fetch("registry.invalid:5000/app:1");
    EXPECT_TRUE(fetched.ok()) << variable << fetched.status();
    EXPECT_EQ(*Fetch(direct.host() + "/app:1"), kManifest);
    setenv("NO_PROXY", "registry.invalid", 1);
    EXPECT_EQ(Fetch("registry.invalid:5000/app:1").status().code(), absl::StatusCode::kUnavailable);
    unsetenv("NO_PROXY");
    unsetenv(variable);
  }
  EXPECT_EQ(proxy.requests().size(), 4U);
}

TEST_F(RegistryTransportTest, IdentityTokensAreRefreshedByPost) {
  FakeRegistry registry([](const FakeRequest& request) -> FakeResponse {
    const std::string host = request.headers.at("host");
    if (request.target == "/token") {
      const bool right = request.method == "POST" && !request.headers.contains("authorization") &&
                         request.body ==
                             "service=s&scope=repository%3Aapp%3Apull&grant_type=refresh_token&"
                             "client_id=husk&refresh_token=id%2Ftoken";
      return right ? FakeResponse{.body = R"({"access_token":"fresh"})"} : FakeResponse{.status = 400};
    }
    const auto authorization = request.headers.find("authorization");
    if (authorization != request.headers.end() && authorization->second == "Bearer fresh") return {.body = kManifest};
    return {.status = 401, .headers = {"WWW-Authenticate: Bearer realm=\"http://" + host + "/token\",service=\"s\""}};
  });
  const auto fetched = Fetch(registry.host() + "/app:1", {.identity_token = "id/token"});
  EXPECT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ(Fetch(registry.host() + "/app:1", {.identity_token = "wrong"}).status().code(),
            absl::StatusCode::kUnauthenticated);
}

TEST(HttpDateTest, ParsesWhatHeadersHave) {
  EXPECT_EQ(ParseHttpDate("Thu, 01 Jan 1970 00:01:40 GMT"), 100);
  EXPECT_EQ(ParseHttpDate("soon"), std::nullopt);
}

TEST(UrlForMessageTest, HasNoSecrets) {
  const auto url = [](const char* text) { return UrlForMessage(text); };
  EXPECT_EQ(url("https://u:p@h.example/a?sig=1#f"), "https://h.example/a");
  EXPECT_EQ(url("https://h.example/a@b"), "https://h.example/a@b");
  EXPECT_EQ(url("u:p@h"), "h");
  EXPECT_EQ(url("https://h/\x1b\xc3"), "https://h/\\x1b\\xc3");
  EXPECT_EQ(url(""), "");
}

}  // namespace
}  // namespace husk::images
