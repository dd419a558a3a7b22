// Traffic control between a tap and CNI's interface, in the network namespace of the calling thread.
#ifndef HUSK_SANDBOX_NETWORK_REDIRECT_H_
#define HUSK_SANDBOX_NETWORK_REDIRECT_H_

#include "agent/common/status.h"
#include "sandbox/network/link.h"

namespace husk::sandbox {

// All that arrives at `from` leaves by `to`, and nothing of it reaches the host's own stack. `filter` is a classifier
// (LoadClassifier) that sees each frame first and may drop it, and stays the caller's; -1: none. Replaces what an
// earlier call set up for `from`.
Status Redirect(const Link& from, const Link& to, int filter);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_REDIRECT_H_
