// Cgroups (v2) of containers and execs in the guest.
#ifndef HUSK_AGENT_GUEST_CGROUP_H_
#define HUSK_AGENT_GUEST_CGROUP_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace husk::agent {

// All of these take the cgroup's directory; one that does not exist has no processes.

// Every process in it and below it.
std::vector<pid_t> CgroupProcesses(const std::string& cgroup);
// Sends `signal` to all of them, once to each, and to `leader`: a process that has not been reaped and gets it wherever
// it has moved to; 0: none. SIGKILL reaches also those that are being forked.
void SignalCgroup(const std::string& cgroup, int signal, pid_t leader);
enum class OutOfMemory {
  kNone,
  kContainer,  // a limit of the cgroup, or of one below it, was reached
  kGuest,      // the whole machine was out of memory
};
// Whether the kernel's OOM killer took a process of it or below it, and why.
OutOfMemory CgroupOutOfMemory(const std::string& cgroup);
// Bytes of memory that it uses and that the kernel cannot take from it: all but the page cache of files. 0 if it is not
// there.
std::uint64_t CgroupMemoryInUse(const std::string& cgroup);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CGROUP_H_
