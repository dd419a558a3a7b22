// Guests that answer nothing any more.
#ifndef HUSK_SANDBOX_MUTE_GUEST_H_
#define HUSK_SANDBOX_MUTE_GUEST_H_

#include <string>

#include "agent/common/context.h"
#include "sandbox/environment.h"
#include "sandbox/pod.h"

namespace husk::sandbox {

// After a stop of the container, asked for at `asked_at`, has run out of time. If the guest is mute too, its VM ends,
// and the container with it: nothing else can end it (docs/adr/0132). True if that was done. Blocks for some seconds,
// also when `context` has ended.
bool EndVmOfMuteGuest(Environment& environment, const Context& context, Pod& pod, const std::string& container_id,
                      Context::Clock::time_point asked_at);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_MUTE_GUEST_H_
