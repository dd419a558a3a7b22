// What every call has in common on its way from gRPC's thread to a lane.
#ifndef HUSK_CRI_SERVICE_LANE_CALL_H_
#define HUSK_CRI_SERVICE_LANE_CALL_H_

#include <grpcpp/server_context.h>

#include <chrono>
#include <functional>
#include <stop_token>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "cri/lanes.h"

namespace husk::cri {

// How long a call may take whose client waits for `client`: a little less, at most ten seconds. A client that gives up
// first sees only that it gave up; this one is told what the call was waiting for.
std::chrono::nanoseconds TimeForCall(std::chrono::nanoseconds client);

// A new request id, and an end a little before the client's deadline.
Context CallContext(const grpc::CallbackServerContext& context, std::stop_token cancelled);

// Lanes::Submit; a refusal is in the log when it returns.
Status SubmitCall(Lanes* lanes, LaneClass lane_class, const char* method, const Context& context,
                  std::function<void()> run);

// Runs the handler on the lane's thread, unless nobody waits for it any more. What came of it is in the log, and told
// to the lanes' observer; a library's exception is INTERNAL.
Status RunHandler(const Lanes& lanes, const char* method, const Context& context,
                  const std::function<Status(const Context&)>& handler);

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_LANE_CALL_H_
