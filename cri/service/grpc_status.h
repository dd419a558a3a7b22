// The one place where Husk's errors become gRPC's.
#ifndef HUSK_CRI_SERVICE_GRPC_STATUS_H_
#define HUSK_CRI_SERVICE_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "agent/common/status.h"

namespace husk::cri {

// The same canonical code. Messages longer than 3000 bytes lose their middle: the first words say what was being done
// and the last ones why it failed, and gRPC peers drop a call whose trailers exceed 8 KiB.
grpc::Status ToGrpcStatus(const Status& status);

Status FromGrpcStatus(const grpc::Status& status);

// An error of a pull as the kubelet understands it: it reads the reason from the message's prefix, and strips the
// code only from UNKNOWN.
Status PullError(const Status& status);

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_GRPC_STATUS_H_
