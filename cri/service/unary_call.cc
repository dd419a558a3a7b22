#include "cri/service/unary_call.h"

#include <utility>

#include "cri/service/grpc_status.h"
#include "cri/service/lane_call.h"

namespace husk::cri {

UnaryCall::UnaryCall(const Lanes* lanes, const char* method, const grpc::CallbackServerContext& context,
                     Handler handler)
    : lanes_(lanes),
      method_(method),
      context_(CallContext(context, cancelled_.get_token())),
      handler_(std::move(handler)) {}

grpc::ServerUnaryReactor* UnaryCall::Post(Lanes* lanes, LaneClass lane_class, const char* method,
                                          grpc::CallbackServerContext* context, Handler handler) {
  auto* call = new UnaryCall(lanes, method, *context, std::move(handler));
  const Status posted = SubmitCall(lanes, lane_class, method, call->context_, [call] { call->Run(); });
  if (!posted.ok()) call->Finish(ToGrpcStatus(posted));
  return call;
}

void UnaryCall::Run() {
  const Status status = RunHandler(*lanes_, method_, context_, handler_);
  handler_ = nullptr;
  Finish(ToGrpcStatus(status));  // the last touch: OnDone may delete this before Finish returns
}

grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context, const std::string& why) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, why));
  return reactor;
}

}  // namespace husk::cri
