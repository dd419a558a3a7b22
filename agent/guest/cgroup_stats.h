// What the kernel counts for a cgroup (v2) in the guest, and for the guest's network interfaces.
#ifndef HUSK_AGENT_GUEST_CGROUP_STATS_H_
#define HUSK_AGENT_GUEST_CGROUP_STATS_H_

#include <string>
#include <string_view>
#include <vector>

#include "agent/proto/agent.pb.h"

namespace husk::agent {

// `cgroup`: its directory. What a missing file or a missing line would tell is absent.
v1::CgroupStats ReadCgroupStats(const std::string& cgroup);

// From the text of a *.pressure file.
v1::Pressure ParsePressure(std::string_view text);
// From the text of /proc/net/dev; loopback is left out, and so are lines that cannot be read.
std::vector<v1::InterfaceStats> ParseInterfaces(std::string_view text);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CGROUP_STATS_H_
