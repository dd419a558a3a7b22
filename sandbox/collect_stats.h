// Figures of many pods at once.
#ifndef HUSK_SANDBOX_COLLECT_STATS_H_
#define HUSK_SANDBOX_COLLECT_STATS_H_

#include <memory>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "sandbox/environment.h"
#include "sandbox/pod.h"
#include "sandbox/stats.h"

namespace husk::sandbox {

// Asks the guests of all these pods that run, in parallel, and waits for them for a second together, or for as long as
// the context lasts. What has not answered by then has its last figures.
void RefreshStats(const Environment& environment, const Context& context,
                  const std::vector<std::shared_ptr<Pod>>& pods);

// From the last figures; nothing is asked.
PodStats LastPodStats(const Environment& environment, const Pod& pod);
ContainerStats LastContainerStats(const Pod& pod, const ContainerStatus& status);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_COLLECT_STATS_H_
