#include "cri/streaming/upgrade.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cri/streaming/spdy_codec.h"
#include "cri/streaming/websocket_codec.h"

namespace husk::cri {
namespace {

using Protocols = std::vector<StreamProtocol>;

constexpr char kProtocolHeader[] = "X-Stream-Protocol-Version";

const Protocols& SpdyProtocols() {
  static const Protocols protocols = {
      {.name = "v4.channel.k8s.io", .json_status = true, .resize = true},
      {.name = "v3.channel.k8s.io", .resize = true},
      {.name = "v2.channel.k8s.io"},
      {.name = "channel.k8s.io"},
  };
  return protocols;
}

const Protocols& WebSocketProtocols() {
  static const Protocols protocols = {
      {.name = "v5.channel.k8s.io", .websocket = true, .half_close = true, .json_status = true, .resize = true},
      {.name = "v4.channel.k8s.io", .websocket = true, .json_status = true, .resize = true},
      {.name = "v4.base64.channel.k8s.io", .websocket = true, .base64 = true, .json_status = true, .resize = true},
      {.name = "channel.k8s.io", .websocket = true, .resize = true},
      {.name = "base64.channel.k8s.io", .websocket = true, .base64 = true, .resize = true},
  };
  return protocols;
}

const Protocols& SpdyForwardProtocols() {
  static const Protocols protocols = {{.name = "portforward.k8s.io"}};
  return protocols;
}

const Protocols& WebSocketForwardProtocols() {
  static const Protocols protocols = {{.name = "v4.channel.k8s.io", .websocket = true},
                                      {.name = "v4.base64.channel.k8s.io", .websocket = true, .base64 = true}};
  return protocols;
}

bool Has(const std::vector<std::string>& values, const char* value) {
  return std::any_of(values.begin(), values.end(),
                     [value](const std::string& candidate) { return absl::EqualsIgnoreCase(candidate, value); });
}

const StreamProtocol* Choose(const std::vector<std::string>& wanted, const Protocols& known) {
  for (const std::string& name : wanted) {
    for (const StreamProtocol& protocol : known) {
      if (protocol.name == name) return &protocol;
    }
  }
  return nullptr;
}

UpgradeAnswer Refuse(int code, const char* reason, const std::string& message, const std::string& headers = "") {
  return {.response = HttpRefusal(code, reason, message, headers), .protocol = std::nullopt};
}

UpgradeAnswer RefuseProtocols(const char* header, const Protocols& known) {
  const auto name = [](std::string* out, const StreamProtocol& protocol) { out->append(protocol.name); };
  const std::string names = absl::StrJoin(known, ", ", name);
  return Refuse(403, "Forbidden", absl::StrCat("none of the protocols in ", header, " is known; known are ", names),
                absl::StrCat("X-Accepted-Stream-Protocol-Versions: ", names, "\r\n"));
}

UpgradeAnswer AnswerSpdy(const HttpHead& head, const Protocols& known) {
  const std::vector<std::string> wanted = head.Values(kProtocolHeader);
  if (wanted.empty()) return Refuse(400, "Bad Request", absl::StrCat("the header ", kProtocolHeader, " is missing"));
  const StreamProtocol* protocol = Choose(wanted, known);
  if (protocol == nullptr) return RefuseProtocols(kProtocolHeader, known);
  return {.response = absl::StrCat("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
                                   kProtocolHeader, ": ", protocol->name, "\r\n\r\n"),
          .protocol = *protocol};
}

UpgradeAnswer AnswerWebSocket(const HttpHead& head, const Protocols& known) {
  constexpr char kHeader[] = "Sec-WebSocket-Protocol";
  if (head.method != "GET") return Refuse(405, "Method Not Allowed", "WebSocket begins with GET", "Allow: GET\r\n");
  if (!Has(head.Values("Sec-WebSocket-Version"), "13")) {
    return Refuse(426, "Upgrade Required", "only version 13 of WebSocket is spoken here",
                  "Sec-WebSocket-Version: 13\r\n");
  }
  const std::vector<std::string> keys = head.Values("Sec-WebSocket-Key");
  if (keys.size() != 1) return Refuse(400, "Bad Request", "there must be one header Sec-WebSocket-Key");
  const std::vector<std::string> wanted = head.Values(kHeader);
  if (wanted.empty()) return Refuse(400, "Bad Request", absl::StrCat("the header ", kHeader, " is missing"));
  const StreamProtocol* protocol = Choose(wanted, known);
  if (protocol == nullptr) return RefuseProtocols(kHeader, known);
  return {.response = absl::StrCat("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
                                   "Sec-WebSocket-Accept: ", WebSocketCodec::AcceptKey(keys[0]), "\r\n", kHeader, ": ",
                                   protocol->name, "\r\n\r\n"),
          .protocol = *protocol};
}

}  // namespace

std::vector<std::string> HttpHead::Values(std::string_view name) const {
  std::vector<std::string> values;
  for (const auto& [key, value] : headers) {
    if (!absl::EqualsIgnoreCase(key, std::string(name))) continue;
    for (const auto& part : absl::StrSplit(value, ',')) {
      std::string trimmed(absl::StripAsciiWhitespace(part));
      if (!trimmed.empty()) values.push_back(std::move(trimmed));
    }
  }
  return values;
}

std::string_view PathPrefix(StreamRequest::Kind kind) {
  switch (kind) {
    case StreamRequest::Kind::kExec:
      return "/exec/";
    case StreamRequest::Kind::kAttach:
      return "/attach/";
    case StreamRequest::Kind::kPortForward:
      return "/portforward/";
  }
  return "/";
}

std::optional<StreamTarget> ParseStreamTarget(std::string_view target) {
  // What is wanted stands with the token, but for ports, which are read elsewhere.
  target = target.substr(0, target.find('?'));
  for (const StreamRequest::Kind kind :
       {StreamRequest::Kind::kExec, StreamRequest::Kind::kAttach, StreamRequest::Kind::kPortForward}) {
    const std::string_view prefix = PathPrefix(kind);
    if (target.substr(0, prefix.size()) != prefix) continue;
    std::string token(target.substr(prefix.size()));
    if (token.empty() || token.find('/') != std::string::npos) return std::nullopt;
    return StreamTarget{.kind = kind, .token = std::move(token)};
  }
  return std::nullopt;
}

UpgradeAnswer AnswerUpgrade(const HttpHead& head, StreamRequest::Kind kind) {
  if (head.method != "GET" && head.method != "POST") {
    return Refuse(405, "Method Not Allowed", "use GET or POST", "Allow: GET, POST\r\n");
  }
  const std::vector<std::string> upgrades = head.Values("Upgrade");
  if (Has(head.Values("Connection"), "Upgrade")) {
    const bool forward = kind == StreamRequest::Kind::kPortForward;
    if (Has(upgrades, "SPDY/3.1")) return AnswerSpdy(head, forward ? SpdyForwardProtocols() : SpdyProtocols());
    if (Has(upgrades, "websocket")) {
      return AnswerWebSocket(head, forward ? WebSocketForwardProtocols() : WebSocketProtocols());
    }
  }
  return Refuse(400, "Bad Request", "the request must upgrade the connection to SPDY/3.1 or websocket");
}

std::string HttpRefusal(int code, std::string_view reason, std::string_view message, std::string_view headers) {
  return absl::StrCat("HTTP/1.1 ", code, " ", std::string(reason), "\r\nContent-Type: text/plain; charset=utf-8\r\n",
                      "X-Content-Type-Options: nosniff\r\nContent-Length: ", message.size() + 1, "\r\n",
                      std::string(headers)) +
         absl::StrCat("Connection: close\r\n\r\n", std::string(message), "\n");
}

std::unique_ptr<Wire> MakeWire(const StreamProtocol& protocol) {
  if (!protocol.websocket) return std::make_unique<SpdyCodec>();
  return std::make_unique<WebSocketCodec>(
      WebSocketCodec::Options{.base64 = protocol.base64, .half_close = protocol.half_close});
}

}  // namespace husk::cri
