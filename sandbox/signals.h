// Signals by the names that images and the CRI give them.
#ifndef HUSK_SANDBOX_SIGNALS_H_
#define HUSK_SANDBOX_SIGNALS_H_

#include <cstdint>
#include <string_view>

#include "agent/common/status.h"

namespace husk::sandbox {

// "SIGTERM", "term", "15", "SIGRTMIN+3". Linux's numbers on x86-64, whatever the host. Anything else is
// INVALID_ARGUMENT.
StatusOr<std::uint32_t> ParseSignal(std::string_view name);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_SIGNALS_H_
