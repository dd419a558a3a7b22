// The HTTP request with which a client comes for its streams, and the answer.
#ifndef HUSK_CRI_STREAMING_UPGRADE_H_
#define HUSK_CRI_STREAMING_UPGRADE_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cri/streaming/stream_request.h"
#include "cri/streaming/wire.h"

namespace husk::cri {

struct HttpHead {
  std::string method;
  std::string target;
  std::vector<std::pair<std::string, std::string>> headers;  // in order, repetitions included

  // The values of all headers of that name, split at commas; the name's case does not matter.
  [[nodiscard]] std::vector<std::string> Values(std::string_view name) const;
};

// How a kind of request is spoken over a connection.
struct StreamProtocol {
  std::string name;  // "v4.channel.k8s.io"
  bool websocket = false;
  bool base64 = false;       // WebSocket
  bool half_close = false;   // WebSocket: the end of stdin can be told
  bool json_status = false;  // the final status is JSON, told of success too
  bool resize = false;       // there is a stream for the terminal's size
};

// The path is /exec/TOKEN, /attach/TOKEN or /portforward/TOKEN.
struct StreamTarget {
  StreamRequest::Kind kind = StreamRequest::Kind::kExec;
  std::string token;
};
// "/exec/", "/attach/" or "/portforward/".
std::string_view PathPrefix(StreamRequest::Kind kind);
std::optional<StreamTarget> ParseStreamTarget(std::string_view target);

struct UpgradeAnswer {
  std::string response;                    // for the client, whole
  std::optional<StreamProtocol> protocol;  // absent: refused
};

// 101 with one of the protocols of this kind, by the client's preference; otherwise what is wrong.
UpgradeAnswer AnswerUpgrade(const HttpHead& head, StreamRequest::Kind kind = StreamRequest::Kind::kExec);

// A whole response that closes the connection. `headers`: lines, each with its line end.
std::string HttpRefusal(int code, std::string_view reason, std::string_view message, std::string_view headers = "");

// The connection's other half, once the answer is sent.
std::unique_ptr<Wire> MakeWire(const StreamProtocol& protocol);

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_UPGRADE_H_
