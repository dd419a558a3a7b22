// Which of a connection's streams is a command's input, output, and so on.
#ifndef HUSK_CRI_STREAMING_STREAM_ROLES_H_
#define HUSK_CRI_STREAMING_STREAM_ROLES_H_

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "cri/streaming/stream_request.h"
#include "cri/streaming/upgrade.h"
#include "cri/streaming/wire.h"
#include "sandbox/client_streams.h"

namespace husk::cri {

// Their numbers are the channels of WebSocket.
enum class StreamRole : std::size_t { kInput, kOutput, kErrorOutput, kStatus, kResize };
inline constexpr std::size_t kStreamRoleCount = 5;

// Over SPDY the client opens its streams, one of each kind that was asked for, and says by the header "streamtype"
// which is which. Over WebSocket they are there from the beginning. Not thread safe.
class StreamRoles {
 public:
  StreamRoles(const StreamRequest& request, const StreamProtocol& protocol);

  // False: the stream is of no use and has to be refused.
  bool Open(WireStream stream, const WireHeaders& headers);
  // Whether all that are expected are open.
  [[nodiscard]] bool complete() const;
  // For an error about those that are missing.
  [[nodiscard]] std::string missing() const;
  [[nodiscard]] std::optional<StreamRole> RoleOf(WireStream stream) const;
  [[nodiscard]] std::optional<WireStream> StreamOf(StreamRole role) const;

 private:
  std::array<bool, kStreamRoleCount> expected_{};
  std::array<std::optional<WireStream>, kStreamRoleCount> streams_;
};

// The messages on the stream of sizes: {"Width":80,"Height":24}, one after the other, cut anywhere. Not thread safe.
class SizeReader {
 public:
  // The last size that is complete with these bytes, if any. What is no size is passed over.
  std::optional<sandbox::TerminalSize> Take(std::string_view bytes);

 private:
  std::string partial_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_STREAM_ROLES_H_
