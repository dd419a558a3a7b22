// How large a pod's VM shall be for the containers that are in it. docs/adr/0115.
#ifndef HUSK_SANDBOX_WANTED_SIZE_H_
#define HUSK_SANDBOX_WANTED_SIZE_H_

#include <cstdint>
#include <vector>

#include "sandbox/runtime.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// What a pod was announced with, and what its containers may use that have not ended.
struct PodNeeds {
  LinuxResources resources;
  LinuxResources overhead;
  std::vector<LinuxResources> containers;
  // What those without a limit of memory have had the VM grow to: all its memory but for huge pages. 0: nothing.
  std::uint64_t demanded_memory_bytes = 0;
};

struct WantedSize {
  std::uint32_t vcpus = 1;
  std::uint64_t memory_bytes = 0;     // beside that for huge pages; a multiple of 2 MiB
  std::uint64_t huge_page_bytes = 0;  // a multiple of 128 MiB
  bool unmovable = false;             // some of it is for pages that the guest's kernel cannot move
};

// With options as WithHostLimits gives them. Memory and vCPUs that limits ask for end at the maxima, as a limit may be
// more than a node has; huge pages do not, as they are had or not: the VM refuses those that it cannot have.
WantedSize SizeWanted(const RuntimeOptions& options, const PodNeeds& needs);

// Whether a container may use more memory than the VM has now.
bool HasMemoryOnDemand(const PodNeeds& needs);
// Whether the VM may become larger for it than it is wanted to be.
bool CanDemandMore(const RuntimeOptions& options, const PodNeeds& needs);

// What a VM of that size has beside what it was started with: a multiple of 4 MiB, for SetPluggedMemory.
std::uint64_t PluggedFor(const WantedSize& wanted, std::uint64_t boot_bytes, std::uint64_t maximum_bytes);

// The announced resources, or the containers' together where those are more: a container's limit may grow before its
// pod's does. What was not announced stays so.
LinuxResources AnnouncedOrMore(const PodNeeds& needs);

// The larger of both in memory, CPUs, and huge pages of each size; no limit is more than any. The rest is `after`'s.
LinuxResources MoreOf(const LinuxResources& before, const LinuxResources& after);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_WANTED_SIZE_H_
