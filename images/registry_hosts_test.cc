#include "images/registry_hosts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "images/digest.h"
#include "images/registry_client.h"
#include "images/testing/disk_check.h"
#include "images/testing/fake_registry.h"
#include "images/text.h"
#include "images/url.h"

namespace husk::images {
namespace {

using ::testing::ElementsAre;
using testing::FakeRegistry;
using testing::FakeRequest;
using testing::FakeResponse;
using ::testing::HasSubstr;
using ::testing::Not;

const Context kContext = Context::Background("test");

class RegistryHostsTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path whole = std::filesystem::path(directory_.path()) / path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
    return whole;
  }
  StatusOr<std::vector<RegistryEndpoint>> Find(const std::string& reference) const {
    return FindEndpoints(directory_.path(), *ParseReference(reference));
  }
  std::vector<std::string> Bases(const std::string& reference) const {
    const auto endpoints = Find(reference);
    if (!endpoints.ok()) return {std::string(endpoints.status().message())};
    std::vector<std::string> bases;
    for (const RegistryEndpoint& endpoint : *endpoints) bases.push_back(endpoint.base);
    return bases;
  }

  const testing::TemporaryDirectory directory_;
};

TEST_F(RegistryHostsTest, WithoutSettingsTheRegistryItself) {
  EXPECT_THAT(Bases("registry.example:5000/a/b"), ElementsAre("https://registry.example:5000/v2"));
  EXPECT_THAT(Bases("busybox"), ElementsAre("https://registry-1.docker.io/v2"));
  EXPECT_THAT(Bases("127.0.0.1:5000/a"), ElementsAre("http://127.0.0.1:5000/v2"));
  EXPECT_THAT(Bases("localhost:443/a"), ElementsAre("https://localhost:443/v2"));
  const auto endpoints = FindEndpoints("", *ParseReference("registry.example/a"));
  ASSERT_EQ(endpoints->size(), 1U);
  EXPECT_FALSE(endpoints->front().mirror);
  EXPECT_EQ(endpoints->front().query, "");
}

TEST_F(RegistryHostsTest, MirrorsInTheOrderOfTheFileThenTheServer) {
  Write("registry.example/hosts.toml", R"(
server = "https://upstream.example"
capabilities = ["pull"]

[host."https://zebra.example:8443/path"]
  capabilities = ["Pull", "resolve", "push"]
  dial_timeout = "1500ms"
  [host."https://zebra.example:8443/path".header]
    X-Token = ["one", "two"]
    authorization = "Basic bWlycm9y"
[host."http://apple.example/own/root/"]
  override_path = true
  capabilities = ["pull"]
[host."registry.example/cache/v2"]
)");
  EXPECT_THAT(Bases("registry.example/app"),
              ElementsAre("https://zebra.example:8443/path/v2", "http://apple.example/own/root",
                          "https://registry.example/cache/v2", "https://upstream.example/v2"));
  const auto endpoints = *Find("registry.example/app");
  EXPECT_TRUE(endpoints[0].mirror && endpoints[0].resolve && endpoints[0].pull);
  EXPECT_EQ(endpoints[0].query, "ns=registry.example");
  EXPECT_EQ(endpoints[0].dial_timeout, std::chrono::milliseconds(1500));
  EXPECT_THAT(endpoints[0].headers, ElementsAre("X-Token: one", "X-Token: two"));
  EXPECT_EQ(endpoints[0].authorization, "Basic bWlycm9y");
  EXPECT_FALSE(endpoints[0].credentials);
  EXPECT_FALSE(endpoints[1].resolve);
  // Another path of the registry's own host is the registry, as far as its credentials are concerned.
  EXPECT_TRUE(endpoints[2].credentials);
  EXPECT_EQ(endpoints[2].query, "");
  EXPECT_FALSE(endpoints[3].mirror || endpoints[3].resolve);
  EXPECT_TRUE(endpoints[3].credentials);
  EXPECT_EQ(endpoints[3].query, "ns=registry.example");
}

TEST_F(RegistryHostsTest, CredentialsAreNotForOtherPortsOrPlainHttp) {
  Write("registry.example/hosts.toml", R"(
[host."http://registry.example"]
[host."https://registry.example:444"]
[host."https://registry.example:443"]
)");
  const auto endpoints = *Find("registry.example/app");
  EXPECT_FALSE(endpoints[0].credentials);
  EXPECT_FALSE(endpoints[1].credentials);
  EXPECT_TRUE(endpoints[2].credentials);
}

TEST_F(RegistryHostsTest, TheMostParticularDirectoryCounts) {
  EXPECT_THAT(HostDirectoryNames("a.example:5000"), ElementsAre("a.example_5000_", "a.example:5000", "_default"));
  EXPECT_THAT(HostDirectoryNames("[::1]:5000"), ElementsAre("[::1]_5000_", "[::1]:5000", "_default"));
  EXPECT_THAT(HostDirectoryNames("[::1]"), ElementsAre("[::1]", "_default"));
  Write("_default/hosts.toml", "[host.\"https://default.example\"]\n");
  EXPECT_THAT(Bases("a.example:5000/x"), ElementsAre("https://default.example/v2", "https://a.example:5000/v2"));
  Write("a.example:5000/hosts.toml", "[host.\"https://colon.example\"]\n");
  EXPECT_THAT(Bases("a.example:5000/x"), ElementsAre("https://colon.example/v2", "https://a.example:5000/v2"));
  Write("a.example_5000_/hosts.toml", "server = \"https://other.example\"\n");
  EXPECT_THAT(Bases("a.example:5000/x"), ElementsAre("https://other.example/v2"));
  Write("docker.io/hosts.toml", "server = \"https://registry-1.docker.io\"\n");
  EXPECT_EQ(Find("busybox")->front().query, "");
}

TEST_F(RegistryHostsTest, ErrorsNameFileAndLine) {
  struct Bad {
    std::string text;
    std::string place;
    std::string words;
  };
  const std::vector<Bad> cases = {
      {"server = \"https://a\"\nserver = \"b\"\n", ":2: ", ""},
      {"\n[host.\"https://m\"]\n  skip_verfy = true\n", ":3: ", "unknown key \"skip_verfy\""},
      {"server = 1\n", ":1: ", "server = a URL"},
      {"server = \"ftp://a\"\n", ":1: ", "neither https nor http"},
      {"[host.\"https://\"]\n", ":1: ", "URL"},
      {"capabilities = [\"pull\",\n\"delete\"]\n", ":2: ", "\"delete\" is none of"},
      {"capabilities = \"pull\"\n", ":1: ", "a list"},
      {"skip_verify = \"yes\"\n", ":1: ", "true or false"},
      {"\nca = \"missing.crt\"\n", ":2: ", "missing.crt: No such file"},
      {"ca = [1]\n", ":1: ", "a list of files"},
      {"client = [[\"a\", \"b\", \"c\"]]\n", ":1: ", "pairs"},
      {"[header]\nX = \"a\\nb\"\n", ":2: ", "header \"X\""},
      {"[header]\n\"X Y\" = \"s3cret\"\n", ":2: ", "not fit"},
      {"dial_timeout = \"1h\"\n", ":1: ", "dial_timeout"},
      {"host = 1\n", ":1: ", "[host."},
      {"[host\n", ":1: ", ""},
      {"[host.\xde\x9e]\n", ":1: ", "\\xde\\x9e"},
      {"ca = '\xc3\xbc'\n", ":1: ", "\\xc3\\xbc: No such file"},
      {"ca = '/'\n", ":1: ", "read /: it cannot be read"},
      {"[ {\n", ":1: ", "expected bare key"},
  };
  for (const Bad& bad : cases) {
    const std::string file = Write("r.example/hosts.toml", bad.text);
    const auto endpoints = Find("r.example/app");
    EXPECT_EQ(endpoints.status().code(), absl::StatusCode::kFailedPrecondition) << bad.text << endpoints.status();
    EXPECT_THAT(std::string(endpoints.status().message()), HasSubstr(file + bad.place)) << bad.text;
    EXPECT_THAT(std::string(endpoints.status().message()), HasSubstr(bad.words)) << bad.text;
    EXPECT_THAT(std::string(endpoints.status().message()), Not(HasSubstr("s3cret")));
  }
}

TEST_F(RegistryHostsTest, ADirectoryIsNoFile) {
  Write("r.example/hosts.toml/x", "");
  const auto endpoints = Find("r.example/app");
  EXPECT_EQ(endpoints.status().code(), absl::StatusCode::kFailedPrecondition) << endpoints.status();
  EXPECT_THAT(std::string(endpoints.status().message()), HasSubstr("hosts.toml: it cannot be read"));
}

// --- mirrors at work

const std::string kBlob(300'000, 'm');
const Descriptor kDescriptor{.digest = DigestOf(kBlob), .size = kBlob.size()};
const std::string kManifest = R"({"schemaVersion":2})";

class MirrorsTest : public RegistryHostsTest {
 protected:
  using Handler = FakeRegistry::Handler;
  static FakeResponse Good(const FakeRequest& request) {
    return {.body = request.target.find("/blobs/") == std::string::npos ? kManifest : kBlob};
  }
  static FakeResponse Missing(const FakeRequest&) { return {.status = 404}; }

  // A client of `server` with these mirrors before it.
  std::unique_ptr<RegistryClient> Client(const FakeRegistry& server, const std::vector<std::string>& mirrors,
                                         const RegistryCredentials& credentials = {}) const {
    std::string text;
    for (const std::string& mirror : mirrors) text += Concat("[host.\"http://", mirror, "\"]\n");
    Write(server.host() + "/hosts.toml", text);
    const Reference reference = *ParseReference(server.host() + "/app:1");
    RegistryLimits limits;
    limits.retry.first_pause = limits.mirror_retry.first_pause = std::chrono::milliseconds(1);
    limits.mirror_retry.least_progress = 100;
    return std::make_unique<RegistryClient>(reference, credentials, *Find(server.host() + "/app:1"), limits,
                                            [](const std::string&) {});
  }

  HttpClient http_;
};

TEST_F(MirrorsTest, ADeadOneIsAskedOnce) {
  FakeRegistry server(Good);
  FakeRegistry broken([](const FakeRequest&) -> FakeResponse { return {.status = 503}; });
  // Port 1 of loopback: nobody listens.
  const auto client = Client(server, {"127.0.0.1:1", broken.host()});
  EXPECT_EQ(client->FetchManifest(kContext, http_, "1")->body, kManifest);
  EXPECT_EQ(*client->FetchBlob(kContext, http_, kDescriptor, kBlob.size()), kBlob);
  EXPECT_EQ(broken.requests().size(), 1U);
  EXPECT_EQ(server.requests().size(), 2U);
}

TEST_F(MirrorsTest, WhatOneLacksTheNextHas) {
  FakeRegistry server(Missing);
  FakeRegistry empty(Missing);
  FakeRegistry full(Good);
  const auto client = Client(server, {empty.host(), full.host()});
  EXPECT_EQ(client->FetchManifest(kContext, http_, "1")->body, kManifest);
  EXPECT_EQ(*client->FetchBlob(kContext, http_, kDescriptor, kBlob.size()), kBlob);
  // Lacking something is no failure: it is asked again for the blob.
  EXPECT_EQ(empty.requests().size(), 2U);
  EXPECT_EQ(server.requests().size(), 0U);
  EXPECT_EQ(full.requests()[0].target, "/v2/app/manifests/1?ns=" + EscapeQuery(server.host()));
}

TEST_F(MirrorsTest, WhenAllFailTheRegistrysAnswerCounts) {
  FakeRegistry server(Missing);
  const auto client = Client(server, {"127.0.0.1:1"});
  const auto manifest = client->FetchManifest(kContext, http_, "1");
  EXPECT_EQ(manifest.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(manifest.status().message()), HasSubstr(server.host() + "/v2/app/manifests/1"));
  EXPECT_THAT(std::string(manifest.status().message()), HasSubstr("127.0.0.1:1/v2/app/manifests/1"));
}

TEST_F(MirrorsTest, ABlobGoesOnElsewhereWhereItWasCutOff) {
  FakeRegistry mirror([](const FakeRequest& request) -> FakeResponse {
    if (request.headers.contains("range")) return {.status = 500};
    return {.body = kBlob, .cut_at = 1000};
  });
  FakeRegistry server([](const FakeRequest& request) -> FakeResponse {
    EXPECT_EQ(request.headers.at("range"), "bytes=1000-");
    return {.status = 206, .headers = {"Content-Range: bytes 1000-299999/300000"}, .body = kBlob.substr(1000)};
  });
  const auto client = Client(server, {mirror.host()});
  EXPECT_EQ(*client->FetchBlob(kContext, http_, kDescriptor, kBlob.size()), kBlob);
  EXPECT_EQ(server.requests().size(), 1U);
}

TEST_F(MirrorsTest, WrongContentIsFetchedAnewFromTheRegistry) {
  FakeRegistry liar([](const FakeRequest&) -> FakeResponse { return {.body = std::string(kBlob.size(), 'x')}; });
  FakeRegistry server(Good);
  const auto client = Client(server, {liar.host()});
  EXPECT_EQ(*client->FetchBlob(kContext, http_, kDescriptor, kBlob.size()), kBlob);
  EXPECT_EQ(client->FetchManifest(kContext, http_, DigestOf(kManifest))->body, kManifest);
  EXPECT_EQ(liar.requests().size(), 1U);
}

TEST_F(MirrorsTest, SeeNoCredentialsOfTheRegistry) {
  const auto wants = [](const FakeRequest& request) -> FakeResponse {
    if (request.headers.contains("authorization")) return Good(request);
    return {.status = 401, .headers = {"WWW-Authenticate: Basic realm=\"r\""}};
  };
  FakeRegistry server(wants);
  FakeRegistry mirror(wants);
  const auto client = Client(server, {mirror.host()}, {.username = "u", .password = "p"});
  EXPECT_EQ(client->FetchManifest(kContext, http_, "1")->body, kManifest);
  ASSERT_EQ(mirror.requests().size(), 1U);
  EXPECT_FALSE(mirror.requests()[0].headers.contains("authorization"));
  EXPECT_EQ(server.requests().back().headers.at("authorization"), "Basic dTpw");
}

}  // namespace
}  // namespace husk::images
