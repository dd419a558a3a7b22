#include "cri/service/grpc_status.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "cri/service/readable_text.h"

namespace husk::cri {

namespace {

// Short enough for gRPC's headers, and text: a message may quote what a caller, a registry, an image or a guest said. A
// character that the cut goes through shows as its bytes.
std::string Readable(absl::string_view message) {
  constexpr std::size_t kLongest = 3000;
  constexpr std::size_t kHalf = kLongest / 2;
  const auto readable = [](absl::string_view part) { return ReadableText({part.data(), part.size()}); };
  if (message.size() <= kLongest) return readable(message);
  return absl::StrCat(readable(message.substr(0, kHalf)), " [...] ", readable(message.substr(message.size() - kHalf)));
}

}  // namespace

grpc::Status ToGrpcStatus(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // absl's codes are gRPC's, number by number.
  return {static_cast<grpc::StatusCode>(status.raw_code()), Readable(status.message())};
}

Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
}

Status PullError(const Status& status) {
  if (status.code() != absl::StatusCode::kUnavailable) return status;
  return absl::UnknownError(absl::StrCat("RegistryUnavailable: ", status.message()));
}

}  // namespace husk::cri
