// What the kernel says of the guest's memory as a whole.
#ifndef HUSK_AGENT_GUEST_MEMINFO_H_
#define HUSK_AGENT_GUEST_MEMINFO_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace husk::agent {

// A field of a file such as /proc/meminfo, by its name with the colon; 0 if it does not tell.
std::uint64_t MeminfoBytes(const std::string& path, std::string_view field);
// Of /proc/meminfo.
std::uint64_t MemoryTotalBytes();

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_MEMINFO_H_
