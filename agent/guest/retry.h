// Waiting for what the kernel tells nobody about (a disk that appears, a mount that is let go): try, sleep, try again.
#ifndef HUSK_AGENT_GUEST_RETRY_H_
#define HUSK_AGENT_GUEST_RETRY_H_

#include <functional>

#include "agent/common/status.h"
#include "agent/guest/event_loop.h"

namespace husk::agent {

// Calls `attempt` now and then every few milliseconds until it is OK or `patience` has passed; then `done` with the
// last outcome. The first attempt, and `done` after it, may run before this returns. `loop` must outlive it all.
void Retry(EventLoop& loop, EventLoop::Clock::duration patience, std::function<Status()> attempt,
           std::function<void(Status)> done);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_RETRY_H_
