#include "images/reference.h"

#include <gtest/gtest.h>

#include <string>

#include "images/text.h"

namespace husk::images {
namespace {

const std::string kHex(64, 'a');

TEST(ReferenceTest, FillsInWhatDockerFillsIn) {
  const auto key = [](const std::string& text) { return ParseReference(text)->Key(); };
  EXPECT_EQ(key("busybox"), "docker.io/library/busybox:latest");
  EXPECT_EQ(key("busybox:1.36"), "docker.io/library/busybox:1.36");
  EXPECT_EQ(key("someone/app"), "docker.io/someone/app:latest");
  EXPECT_EQ(key("index.docker.io/busybox"), "docker.io/library/busybox:latest");
  EXPECT_EQ(key("localhost/app"), "localhost/app:latest");
  EXPECT_EQ(key("localhost:5000/app:1"), "localhost:5000/app:1");
  EXPECT_EQ(key("localhost:5000"), "docker.io/library/localhost:5000");
  EXPECT_EQ(key("127.0.0.1:5000/a/b/c__d-e---f.g:T_1.2-3"), "127.0.0.1:5000/a/b/c__d-e---f.g:T_1.2-3");
  EXPECT_EQ(key("[::1]:5000/app"), "[::1]:5000/app:latest");
  EXPECT_EQ(key("Example.org/app"), "Example.org/app:latest");
  EXPECT_EQ(key("example.org/app:1@sha256:" + kHex), "example.org/app@sha256:" + kHex);
  EXPECT_EQ(ParseReference("example.org/app:1@sha256:" + kHex)->tag, "1");
}

TEST(ReferenceTest, RefusesWhatDockerRefuses) {
  for (const std::string& text : {std::string(""),
                                  std::string("/"),
                                  std::string("a/"),
                                  std::string("/a"),
                                  std::string("a//b"),
                                  std::string("Busybox"),
                                  std::string("a:"),
                                  std::string("a:-x"),
                                  std::string("a@"),
                                  std::string("a@sha256:12"),
                                  "a@sha512:" + kHex,
                                  "a@sha256:" + std::string(64, 'A'),
                                  std::string("a@sha256:../../x"),
                                  kHex,
                                  std::string("a..b"),
                                  std::string("a___b"),
                                  std::string("-a"),
                                  std::string("a-"),
                                  std::string("../a"),
                                  std::string("http://example.org/a"),
                                  std::string("example.org:port/a"),
                                  std::string("example.org:/a"),
                                  std::string("[::1/a"),
                                  std::string("a b"),
                                  std::string("a\nb"),
                                  "a:" + std::string(129, 't'),
                                  std::string(256, 'a'),
                                  std::string("a\0b", 3),
                                  std::string("[::1\0]/a", 8)}) {
    const auto result = ParseReference(text);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(result.status().message().find(Excerpt(text)), std::string::npos) << result.status();
  }
}

TEST(ReferenceTest, ImageIds) {
  EXPECT_EQ(ParseImageId(kHex), "sha256:" + kHex);
  EXPECT_EQ(ParseImageId("sha256:" + kHex), "sha256:" + kHex);
  EXPECT_FALSE(ParseImageId("busybox"));
  EXPECT_FALSE(ParseImageId(std::string(63, 'a')));
  EXPECT_FALSE(ParseImageId(std::string(64, 'g')));
}

TEST(ReferenceTest, LoopbackHosts) {
  for (const char* host : {"localhost", "localhost:1", "127.0.0.1", "127.3.2.1:80", "[::1]", "[::1]:5000"}) {
    EXPECT_TRUE(IsLoopbackHost(host)) << host;
  }
  for (const char* host : {"localhost.example.org", "127.0.0.1.example.org", "128.0.0.1", "10.0.0.1:80", "[::2]:5000",
                           "0.0.0.0", "127.1"}) {
    EXPECT_FALSE(IsLoopbackHost(host)) << host;
  }
}

}  // namespace
}  // namespace husk::images
