#include "cri/service/unary_call.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cri/service/grpc_status.h"

namespace husk::cri {

namespace {

Context MakeContext(const grpc::CallbackServerContext& context, std::stop_token cancelled) {
  static std::atomic<std::uint64_t> next_id = 0;
  const Context background = Context::Background(absl::StrCat("r", ++next_id)).WithStopToken(std::move(cancelled));
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return background;
  // gRPC counts by the wall clock; a step of it must not end our calls.
  return background.WithTimeout(
      std::chrono::duration_cast<Context::Clock::duration>(deadline - std::chrono::system_clock::now()));
}

}  // namespace

UnaryCall::UnaryCall(const char* method, const grpc::CallbackServerContext& context, Handler handler)
    : method_(method), context_(MakeContext(context, cancelled_.get_token())), handler_(std::move(handler)) {}

grpc::ServerUnaryReactor* UnaryCall::Post(Lanes* lanes, LaneClass lane_class, const char* method,
                                          grpc::CallbackServerContext* context, Handler handler) {
  auto* call = new UnaryCall(method, *context, std::move(handler));
  const Status posted = lanes->Submit(lane_class, [call] { call->Run(); });
  if (!posted.ok()) {
    spdlog::warn("refused method={} request={}: {}", method, call->context_.request_id(),
                 std::string(posted.message()));
    call->Finish(ToGrpcStatus(posted));
  }
  return call;
}

void UnaryCall::Run() {
  const auto began = std::chrono::steady_clock::now();
  // It may have waited in the queue for longer than anybody cares.
  Status status = context_.Check();
  if (status.ok()) {
    try {
      status = handler_(context_);
    } catch (const std::exception& error) {
      status = absl::InternalError(absl::StrCat(method_, ": ", error.what()));
    }
  }
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began);
  if (status.ok()) {
    spdlog::debug("done method={} request={} ms={}", method_, context_.request_id(), took.count());
  } else {
    // Asking for what is not there is everyday business of the kubelet.
    spdlog::log(status.code() == absl::StatusCode::kNotFound ? spdlog::level::debug : spdlog::level::warn,
                "failed method={} request={} ms={} code={}: {}", method_, context_.request_id(), took.count(),
                absl::StatusCodeToString(status.code()), std::string(status.message()));
  }
  handler_ = nullptr;
  Finish(ToGrpcStatus(status));  // the last touch: OnDone may delete this before Finish returns
}

grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context, const std::string& why) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, why));
  return reactor;
}

}  // namespace husk::cri
