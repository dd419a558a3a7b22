// Places where a test can make the process die, to prove that what follows recovers from it.
#ifndef HUSK_AGENT_COMMON_FAULT_POINT_H_
#define HUSK_AGENT_COMMON_FAULT_POINT_H_

#include <string>
#include <string_view>
#include <vector>

namespace husk {

// Kills this process with SIGKILL if the environment variable HUSK_FAULT_POINT equals `name`; one comparison with an
// empty string otherwise. Every name must be listed by FaultPoints(), so that the tests which walk them miss none: an
// unlisted name aborts at once.
void FaultPoint(std::string_view name);

// All names, in the order in which one pod's life passes them (a resize's: only if its VM changes) (`huskd
// --list-fault-points`).
const std::vector<std::string>& FaultPoints();

}  // namespace husk

#endif  // HUSK_AGENT_COMMON_FAULT_POINT_H_
