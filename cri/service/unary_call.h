// One call between gRPC's thread, which must not block, and a lane's, which may.
#ifndef HUSK_CRI_SERVICE_UNARY_CALL_H_
#define HUSK_CRI_SERVICE_UNARY_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <stop_token>
#include <string>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "cri/lanes.h"

namespace husk::cri {

// A reactor that owns itself: made on gRPC's thread, run once by a lane, deleted by OnDone, which gRPC calls after
// Finish and after any OnCancel has returned. OnCancel may come at any time before that, on another thread: it touches
// nothing but the stop source. The request and the response belong to gRPC and live as long as the reactor.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  using Handler = std::function<Status(const Context&)>;

  // Classified and posted: returns at once, also when the lane is full, which finishes the call with
  // RESOURCE_EXHAUSTED.
  static grpc::ServerUnaryReactor* Post(Lanes* lanes, LaneClass lane_class, const char* method,
                                        grpc::CallbackServerContext* context, Handler handler);

 private:
  UnaryCall(const Lanes* lanes, const char* method, const grpc::CallbackServerContext& context, Handler handler);
  void Run();
  void OnCancel() override { cancelled_.request_stop(); }
  void OnDone() override { delete this; }

  const Lanes* const lanes_;
  const char* const method_;
  std::stop_source cancelled_;
  const Context context_;
  Handler handler_;
};

// For calls that this version does not have: finishes at once.
grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context, const std::string& why);

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_UNARY_CALL_H_
