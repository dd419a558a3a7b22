// Long polls: Poll of agent.proto.
#ifndef HUSK_AGENT_GUEST_POLLER_H_
#define HUSK_AGENT_GUEST_POLLER_H_

#include <functional>
#include <list>
#include <memory>

#include "agent/common/status.h"
#include "agent/guest/containers.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/memory_mark.h"
#include "agent/guest/payload.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// Not thread safe.
class Poller {
 public:
  // Gets a v1::PollResponse, whose data lies where the streams keep it.
  using Done = std::function<void(StatusOr<Payload>)>;

  Poller(EventLoop& loop, Containers& containers, const MemoryMark& mark)
      : loop_(loop), containers_(containers), mark_(mark) {}
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  void Poll(v1::PollRequest request, Done done);
  // Something may have changed: the parked polls are looked at before the loop sleeps.
  void Changed() { changed_ = true; }
  void BeforeSleep();
  // The connection is gone, and with it who waited.
  void Forget();

 private:
  struct Parked {
    v1::PollRequest request;
    Done done;
    EventLoop::TimerId timer;
  };
  // What there is to tell now; without bytes: nothing.
  Payload Collect(const v1::PollRequest& request);

  EventLoop& loop_;
  Containers& containers_;
  const MemoryMark& mark_;
  bool changed_ = false;
  std::list<Parked> parked_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_POLLER_H_
