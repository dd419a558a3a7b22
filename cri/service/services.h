// The two gRPC services of the CRI: every call is present, classified, and posted to its lane.
#ifndef HUSK_CRI_SERVICE_SERVICES_H_
#define HUSK_CRI_SERVICE_SERVICES_H_

#include <grpcpp/impl/service_type.h>

#include <memory>

#include "cri/lanes.h"
#include "cri/service/handlers.h"
#include "sandbox/event_hub.h"

namespace husk::cri {

// Those borrowed must outlive the service, and the lanes must be drained before the handlers go.
std::unique_ptr<grpc::Service> NewRuntimeService(Handlers* handlers, Lanes* lanes, sandbox::EventHub* events);
std::unique_ptr<grpc::Service> NewImageService(Handlers* handlers, Lanes* lanes);

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_SERVICES_H_
