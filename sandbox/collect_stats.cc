#include "sandbox/collect_stats.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "sandbox/id.h"
#include "sandbox/information.h"
#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

constexpr auto kPatience = std::chrono::seconds(1);

StatsBounds BoundsOf(const Environment& environment, const Pod& pod) {
  const RuntimeOptions options = OptionsFor(environment.options, pod.config().vm_choices);
  StatsBounds bounds{.created_at = pod.Snapshot(false).created_at,
                     .vcpus = SizeVm(options, pod.config().resources, pod.config().overhead).maximum_vcpus,
                     .memory_bytes = std::max(options.maximum_memory_bytes, pod.vm_memory_bytes()),
                     .scratch_bytes = options.scratch_bytes};
  for (const ContainerStatus& container : pod.ContainerSnapshots()) bounds.containers.insert(container.id);
  return bounds;
}

PodMeter::Measure MeasureOf(const Environment& environment, const Pod& pod,
                            std::shared_ptr<agent::AgentClient> client) {
  return [cgroups = environment.parts.cgroups, parent = pod.config().cgroup_parent, id = pod.id(),
          client = std::move(client)](const Context& context) -> StatusOr<StatsSample> {
    StatsSample sample;
    HUSK_ASSIGN_OR_RETURN(sample.guest, client->Stats(context));
    sample.host = cgroups->Usage(parent, id);
    sample.timestamp = NowNanoseconds();
    return sample;
  };
}

ContainerStats StatsOf(const ContainerStatus& status, const PodFigures& pod) {
  ContainerStats stats{.status = status};
  const auto found = pod.containers.find(status.id);
  if (found == pod.containers.end()) return stats;
  stats.timestamp = pod.timestamp;
  if (status.state == ContainerState::kRunning) {
    stats.figures = found->second;
    return stats;
  }
  stats.figures.writable_layer = found->second.writable_layer;
  if (status.state != ContainerState::kExited) return stats;
  // What has been used stays used.
  const CpuFigures& cpu = found->second.cgroup.cpu;
  stats.figures.cgroup.cpu = {.usage_nanoseconds = cpu.usage_nanoseconds,
                              .user_nanoseconds = cpu.user_nanoseconds,
                              .system_nanoseconds = cpu.system_nanoseconds};
  return stats;
}

}  // namespace

void RefreshStats(const Environment& environment, const Context& context,
                  const std::vector<std::shared_ptr<Pod>>& pods) {
  for (const auto& pod : pods) {
    auto client = pod->client();
    if (client == nullptr || !pod->ready()) continue;
    pod->meter().Ask(pod->id(), MeasureOf(environment, *pod, std::move(client)), BoundsOf(environment, *pod));
  }
  const auto deadline = std::min(context.deadline(), Context::Clock::now() + kPatience);
  for (const auto& pod : pods) pod->meter().Await(deadline);
}

ContainerStats LastContainerStats(const Pod& pod, const ContainerStatus& status) {
  return StatsOf(status, pod.meter().figures());
}

PodStats LastPodStats(const Environment& environment, const Pod& pod) {
  PodStats stats{.status = pod.Snapshot(false), .figures = pod.meter().figures()};
  const NetworkResult network = pod.network();
  if (!network.interfaces.empty()) stats.default_interface = network.interfaces.front().name;
  for (const ContainerStatus& status : pod.ContainerSnapshots()) {
    if (status.state == ContainerState::kRunning) stats.containers.push_back(StatsOf(status, stats.figures));
  }
  stats.figures.containers.clear();
  stats.vm = VmFiguresOf(environment, pod);
  return stats;
}

}  // namespace husk::sandbox
