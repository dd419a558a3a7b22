#include "cri/streaming/upgrade.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace husk::cri {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

HttpHead Spdy(const std::vector<std::string>& protocols, const std::string& method = "POST") {
  HttpHead head{.method = method,
                .target = "/exec/t",
                .headers = {{"connection", "keep-alive, upgrade"}, {"Upgrade", "spdy/3.1"}}};
  for (const std::string& protocol : protocols) head.headers.emplace_back("x-stream-protocol-version", protocol);
  return head;
}

HttpHead WebSocket(const std::string& protocols) {
  return {.method = "GET",
          .target = "/exec/t",
          .headers = {{"Connection", "Upgrade"},
                      {"Upgrade", "websocket"},
                      {"Sec-WebSocket-Version", "13"},
                      {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
                      {"Sec-WebSocket-Protocol", protocols}}};
}

TEST(UpgradeTest, TheClientsPreferenceCounts) {
  const UpgradeAnswer answer = AnswerUpgrade(Spdy({"v9.channel.k8s.io", "v3.channel.k8s.io", "v4.channel.k8s.io"}));
  ASSERT_TRUE(answer.protocol);
  EXPECT_EQ(answer.protocol->name, "v3.channel.k8s.io");
  EXPECT_FALSE(answer.protocol->json_status);
  EXPECT_THAT(answer.response, StartsWith("HTTP/1.1 101 "));
  EXPECT_THAT(answer.response, HasSubstr("X-Stream-Protocol-Version: v3.channel.k8s.io\r\n"));
}

TEST(UpgradeTest, EveryVersionOfSpdysProtocol) {
  for (const char* name : {"v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"}) {
    for (const char* method : {"GET", "POST"}) {
      const UpgradeAnswer answer = AnswerUpgrade(Spdy({name}, method));
      ASSERT_TRUE(answer.protocol) << name;
      EXPECT_FALSE(answer.protocol->websocket);
    }
  }
}

TEST(UpgradeTest, NoCommonProtocolIsForbiddenAndTheKnownOnesAreNamed) {
  const UpgradeAnswer answer = AnswerUpgrade(Spdy({"v5.channel.k8s.io"}));
  EXPECT_FALSE(answer.protocol);
  EXPECT_THAT(answer.response, StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(answer.response,
              HasSubstr("X-Accepted-Stream-Protocol-Versions: v4.channel.k8s.io, v3.channel.k8s.io, v2.channel.k8s.io, "
                        "channel.k8s.io\r\n"));
}

TEST(UpgradeTest, WithoutAProtocolTheRequestIsBad) {
  EXPECT_THAT(AnswerUpgrade(Spdy({})).response, StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(AnswerUpgrade(WebSocket("")).response, StartsWith("HTTP/1.1 400 "));
}

TEST(UpgradeTest, EveryProtocolOfWebSocket) {
  for (const char* name : {"v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io",
                           "base64.channel.k8s.io"}) {
    const UpgradeAnswer answer = AnswerUpgrade(WebSocket(std::string("unknown, ") + name));
    ASSERT_TRUE(answer.protocol) << name;
    EXPECT_EQ(answer.protocol->name, name);
    EXPECT_TRUE(answer.protocol->websocket);
    EXPECT_THAT(answer.response, HasSubstr("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    EXPECT_THAT(answer.response, HasSubstr(std::string("Sec-WebSocket-Protocol: ") + name + "\r\n"));
  }
}

TEST(UpgradeTest, BadRequestsOfWebSocket) {
  HttpHead head = WebSocket("v5.channel.k8s.io");
  head.method = "POST";
  EXPECT_THAT(AnswerUpgrade(head).response, StartsWith("HTTP/1.1 405 "));
  head = WebSocket("v5.channel.k8s.io");
  head.headers[2].second = "8";
  EXPECT_THAT(AnswerUpgrade(head).response, StartsWith("HTTP/1.1 426 "));
  head = WebSocket("v5.channel.k8s.io");
  head.headers.erase(head.headers.begin() + 3);
  EXPECT_THAT(AnswerUpgrade(head).response, StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(AnswerUpgrade(WebSocket("portforward.k8s.io")).response, StartsWith("HTTP/1.1 403 "));
}

TEST(UpgradeTest, OtherRequests) {
  HttpHead head = Spdy({"v4.channel.k8s.io"});
  head.method = "PUT";
  EXPECT_THAT(AnswerUpgrade(head).response, StartsWith("HTTP/1.1 405 "));
  head = Spdy({"v4.channel.k8s.io"});
  head.headers[0].second = "close";
  EXPECT_THAT(AnswerUpgrade(head).response, StartsWith("HTTP/1.1 400 "));
  head = Spdy({"v4.channel.k8s.io"});
  head.headers[1].second = "h2c";
  EXPECT_THAT(AnswerUpgrade(head).response, StartsWith("HTTP/1.1 400 "));
}

TEST(UpgradeTest, Targets) {
  EXPECT_EQ(ParseStreamTarget("/exec/abc-_")->token, "abc-_");
  EXPECT_EQ(ParseStreamTarget("/exec/abc?command=x")->token, "abc");
  EXPECT_EQ(ParseStreamTarget("/attach/abc")->kind, StreamRequest::Kind::kAttach);
  EXPECT_EQ(ParseStreamTarget("/portforward/abc?port=80")->kind, StreamRequest::Kind::kPortForward);
  EXPECT_EQ(ParseStreamTarget("/portforward/abc?port=80")->token, "abc");
  for (const char* target : {"", "/", "/exec", "/exec/", "/exec/a/b", "/other/a", "http://host/exec/a", "/exec/?a"}) {
    EXPECT_FALSE(ParseStreamTarget(target)) << target;
  }
}

TEST(UpgradeTest, PortForwardHasProtocolsOfItsOwn) {
  const auto answer = [](const HttpHead& head) { return AnswerUpgrade(head, StreamRequest::Kind::kPortForward); };
  const UpgradeAnswer spdy = answer(Spdy({"portforward.k8s.io"}));
  ASSERT_TRUE(spdy.protocol);
  EXPECT_THAT(spdy.response, HasSubstr("X-Stream-Protocol-Version: portforward.k8s.io\r\n"));
  EXPECT_THAT(answer(Spdy({"v4.channel.k8s.io"})).response, StartsWith("HTTP/1.1 403 "));
  const UpgradeAnswer websocket = answer(WebSocket("v4.channel.k8s.io"));
  ASSERT_TRUE(websocket.protocol);
  EXPECT_TRUE(websocket.protocol->websocket);
  EXPECT_FALSE(websocket.protocol->half_close);
  EXPECT_TRUE(answer(WebSocket("v4.base64.channel.k8s.io")).protocol->base64);
  EXPECT_THAT(answer(WebSocket("v5.channel.k8s.io")).response, StartsWith("HTTP/1.1 403 "));
}

}  // namespace
}  // namespace husk::cri
