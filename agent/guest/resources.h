// The linux.resources of an OCI configuration, where the guest decides: which CPUs, memory nodes and huge pages there
// are, and what a change makes of a configuration.
#ifndef HUSK_AGENT_GUEST_RESOURCES_H_
#define HUSK_AGENT_GUEST_RESOURCES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "agent/guest/huge_pages.h"

namespace husk::agent {

struct GuestTopology {
  // As the kernel lists them: "0-3,5".
  std::string cpus;
  std::string memory_nodes;
  std::vector<std::string> huge_page_sizes = {};  // as HugePages names them
};

// Of this machine as it is now, without the huge pages.
GuestTopology ReadTopology();

// cpu.cpus without those that name a CPU the guest does not have, and cpu.mems likewise: they are the node's numbers,
// by which the guest cannot be divided. hugepageLimits without those of 0 for pages that the guest does not have, which
// nobody can use. What is no list stays, for the kernel to refuse. INVALID_ARGUMENT if it is no JSON object, or wants
// huge pages that the guest does not have.
StatusOr<std::string> FitResources(std::string_view resources_json, const GuestTopology& topology);
// The same for the linux.resources of a configuration.
StatusOr<std::string> FitConfig(std::string_view config_json, const GuestTopology& topology);
// The configuration, changed by what the resources name.
StatusOr<std::string> MergeResources(std::string_view config_json, std::string_view resources_json);

// The hugepageLimits of a configuration that was fitted.
StatusOr<HugePageBytes> HugePageLimits(std::string_view config_json);
// memory.limit of resources; absent if there is none, or it is unlimited.
std::optional<std::uint64_t> MemoryLimit(std::string_view resources_json);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_RESOURCES_H_
