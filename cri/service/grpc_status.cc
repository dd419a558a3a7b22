#include "cri/service/grpc_status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace husk::cri {

namespace {

std::string Shortened(absl::string_view message) {
  constexpr std::size_t kLongest = 3000;
  constexpr std::size_t kHalf = kLongest / 2;
  if (message.size() <= kLongest) return std::string(message);
  return absl::StrCat(message.substr(0, kHalf), " [...] ", message.substr(message.size() - kHalf));
}

}  // namespace

grpc::Status ToGrpcStatus(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // absl's codes are gRPC's, number by number.
  return {static_cast<grpc::StatusCode>(status.raw_code()), Shortened(status.message())};
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
