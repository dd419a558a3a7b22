// What the streaming server's sessions do: the runtime's operations with a client.
#ifndef HUSK_CRI_SERVICE_STREAMS_H_
#define HUSK_CRI_SERVICE_STREAMS_H_

#include "cri/streaming/server.h"
#include "sandbox/runtime.h"

namespace husk::cri {

// `runtime` must outlive the server that uses them.
StreamOperation OperationOf(sandbox::Runtime* runtime);
ForwardOperation ForwardOf(sandbox::Runtime* runtime);

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_STREAMS_H_
