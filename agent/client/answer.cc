#include "agent/client/answer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {
namespace {

constexpr std::uint32_t kProtocolVersion = 1;
constexpr std::size_t kMaximumMessage = 4096;

// The guest's words go into logs and into gRPC messages, which have to be UTF-8.
std::string Printable(std::string_view text) {
  std::string out(text.substr(0, kMaximumMessage));
  std::replace_if(
      out.begin(), out.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e; }, ' ');
  return out;
}

Status StatusOfGuest(const v1::RpcStatus& status) {
  const bool known = status.code() > 0 && status.code() <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  return {known ? static_cast<absl::StatusCode>(status.code()) : absl::StatusCode::kUnknown,
          Printable(status.message())};
}

}  // namespace

StatusOr<Answer> ReadAnswer(const ttrpc::Frame& frame) {
  if (frame.type != ttrpc::MessageType::kResponse) return absl::InvalidArgumentError("a request from the guest");
  v1::RpcResponse response;
  if (!response.ParseFromString(frame.payload)) return absl::InvalidArgumentError("a frame that is not a response");
  if (response.status().code() != 0) return Answer{StatusOfGuest(response.status())};
  return Answer{std::move(*response.mutable_payload())};
}

Status CheckHello(const Answer& answer) {
  if (!answer.outcome.ok()) return Annotate(answer.outcome.status(), "Hello");
  v1::HelloResponse hello;
  if (!hello.ParseFromString(*answer.outcome)) return absl::InvalidArgumentError("Hello's answer cannot be read");
  if (hello.protocol_version() != kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat("the agent speaks version ", hello.protocol_version(),
                                                      " of the protocol, huskd version ", kProtocolVersion));
  }
  return absl::OkStatus();
}

}  // namespace husk::agent
