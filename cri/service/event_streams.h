// GetContainerEvents: the runtime's events on gRPC streams.
#ifndef HUSK_CRI_SERVICE_EVENT_STREAMS_H_
#define HUSK_CRI_SERVICE_EVENT_STREAMS_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "agent/common/mutex.h"
#include "cri/call_observer.h"
#include "cri/proto/api.pb.h"
#include "sandbox/event_hub.h"

namespace husk::cri {

// Streams that may be open at once. There is one kubelet on a node; the others are people who look.
inline constexpr std::size_t kMostEventStreams = 32;

// Thread safe. One thread of its own hands events to the streams that wait for some; a stream that has just written one
// takes the next on gRPC's thread. So a subscriber that does not read holds up nobody: its events wait in its
// subscription, which ends when it is full.
class EventStreams {
 public:
  // The hub and the observer, which is told of each stream's end, must outlive it. Streams end with the hub, or with
  // their clients; all must have ended before this goes.
  EventStreams(sandbox::EventHub* hub, CallObserver* observer);
  EventStreams(const EventStreams&) = delete;
  EventStreams& operator=(const EventStreams&) = delete;
  ~EventStreams();

  // Returns at once. The response's headers are sent as soon as the subscription is made: what happens after a client
  // has them, it is told. RESOURCE_EXHAUSTED beyond kMostEventStreams.
  grpc::ServerWriteReactor<::runtime::v1::ContainerEventResponse>* Open();

 private:
  class Stream;

  void Dispatch();
  void Wake();
  void Remove(const Stream* stream);

  sandbox::EventHub* const hub_;
  CallObserver* const observer_;
  Mutex mutex_;
  ConditionVariable changed_;
  std::vector<std::shared_ptr<Stream>> streams_ ABSL_GUARDED_BY(mutex_);
  bool news_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread dispatcher_;  // last: it uses the rest
};

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_EVENT_STREAMS_H_
