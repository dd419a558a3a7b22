// Changes of limits of a cgroup (v2) in which processes run. docs/adr/0130.
#ifndef HUSK_AGENT_GUEST_CGROUP_LIMITS_H_
#define HUSK_AGENT_GUEST_CGROUP_LIMITS_H_

#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::agent {

// Writes what the resources name, a linux.resources of the OCI's runtime specification: cpu, memory, unified and
// hugepageLimits. What they do not name stays. INVALID_ARGUMENT by the field or the cgroup's file if something is
// unknown or the kernel refuses it, and all is as it was; INTERNAL if some of it could not be taken back.
Status ChangeLimits(const std::string& cgroup, std::string_view resources_json);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CGROUP_LIMITS_H_
