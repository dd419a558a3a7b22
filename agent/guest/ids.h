// The ids that huskd chooses: of containers, execs and volumes.
#ifndef HUSK_AGENT_GUEST_IDS_H_
#define HUSK_AGENT_GUEST_IDS_H_

#include <string>

#include "agent/common/status.h"

namespace husk::agent {

// Ids become file names and crun's arguments.
Status CheckId(const std::string& id);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_IDS_H_
