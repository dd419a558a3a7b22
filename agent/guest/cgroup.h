// A container's cgroup in the guest (v2).
#ifndef HUSK_AGENT_GUEST_CGROUP_H_
#define HUSK_AGENT_GUEST_CGROUP_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace husk::agent {

// All of these take the cgroup's directory; one that does not exist has no processes.

// Every process in it and below it.
std::vector<pid_t> CgroupProcesses(const std::string& cgroup);
// Sends `signal` to all of them. SIGKILL reaches also those that are being forked.
void SignalCgroup(const std::string& cgroup, int signal);
// Whether the kernel's OOM killer took a process of it.
bool CgroupHadOom(const std::string& cgroup);
// Those of `processes` that belong to `leader`: itself, its descendants and the members of its session.
std::vector<pid_t> Family(pid_t leader, const std::vector<pid_t>& processes);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CGROUP_H_
