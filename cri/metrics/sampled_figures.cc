#include "cri/metrics/sampled_figures.h"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "cri/metrics/family.h"

namespace husk::cri {

namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

double Seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

void AddLanes(const Lanes& lanes, std::vector<MetricFamily>* families) {
  struct Figure {
    const char* name;
    const char* help;
    MetricType type;
    std::function<double(const LaneCounters&)> value;
  };
  static const std::vector<Figure> kFigures = {
      {"husk_lane_queued", "Calls that wait for a worker of their lane now.", MetricType::Gauge,
       [](const LaneCounters& lane) { return static_cast<double>(lane.queued); }},
      {"husk_lane_running", "Calls that a worker of the lane runs now.", MetricType::Gauge,
       [](const LaneCounters& lane) { return static_cast<double>(lane.running); }},
      {"husk_lane_accepted_total", "Calls that the lane took.", MetricType::Counter,
       [](const LaneCounters& lane) { return static_cast<double>(lane.accepted); }},
      {"husk_lane_refused_total", "Calls that the lane refused because it was full.", MetricType::Counter,
       [](const LaneCounters& lane) { return static_cast<double>(lane.refused); }},
      {"husk_lane_finished_total", "Calls that the lane has run.", MetricType::Counter,
       [](const LaneCounters& lane) { return static_cast<double>(lane.finished); }},
      {"husk_lane_waited_seconds_total", "How long calls waited for a worker, all together.", MetricType::Counter,
       [](const LaneCounters& lane) { return Seconds(lane.waited); }},
      {"husk_lane_run_seconds_total", "How long finished calls ran, all together.", MetricType::Counter,
       [](const LaneCounters& lane) { return Seconds(lane.run); }}};
  for (const Figure& figure : kFigures) {
    MetricFamily& family = families->emplace_back(NewFamily(figure.name, figure.help, figure.type));
    for (const LaneClass lane_class : kLaneClasses) {
      AddSample(&family, "lane", std::string(LaneName(lane_class)), figure.value(lanes.counters(lane_class)));
    }
  }
}

void AddStates(sandbox::Runtime& runtime, std::vector<MetricFamily>* families) {
  std::size_t ready = 0;
  const auto pods = runtime.ListPods({});
  for (const sandbox::PodStatus& pod : pods) ready += pod.state == sandbox::PodState::kReady ? 1 : 0;
  MetricFamily& by_state = families->emplace_back(NewFamily("husk_pods", "Pods by state.", MetricType::Gauge));
  AddSample(&by_state, "state", "ready", static_cast<double>(ready));
  AddSample(&by_state, "state", "notready", static_cast<double>(pods.size() - ready));

  using State = sandbox::ContainerState;
  std::vector<std::pair<State, std::size_t>> counts = {{State::kCreated, 0}, {State::kRunning, 0}, {State::kExited, 0}};
  for (const sandbox::ContainerStatus& container : runtime.ListContainers({})) {
    for (auto& [state, count] : counts) count += state == container.state ? 1 : 0;
  }
  static constexpr const char* kNames[] = {"created", "running", "exited"};
  MetricFamily& containers =
      families->emplace_back(NewFamily("husk_containers", "Containers by state.", MetricType::Gauge));
  for (std::size_t i = 0; i < counts.size(); ++i) {
    AddSample(&containers, "state", kNames[i], static_cast<double>(counts[i].second));
  }
}

// All VMs together: which pod's they are is told by ListPodSandboxMetrics.
void AddVms(sandbox::Runtime& runtime, std::vector<MetricFamily>* families) {
  sandbox::VmFigures sum;
  std::uint64_t used = 0;
  std::size_t resizing = 0;
  for (const sandbox::VmFigures& vm : runtime.ListVms()) {
    sum.memory_bytes += vm.memory_bytes;
    sum.requested_memory_bytes += vm.requested_memory_bytes;
    sum.wanted_memory_bytes += vm.wanted_memory_bytes;
    used += vm.used_memory_bytes.value_or(0);
    sum.vcpus += vm.vcpus;
    sum.online_vcpus += vm.online_vcpus;
    sum.wanted_vcpus += vm.wanted_vcpus;
    resizing += vm.resizing ? 1 : 0;
  }
  MetricFamily& memory = families->emplace_back(
      NewFamily("husk_vm_memory_bytes", "Memory of all VMs together, by what is known of it.", MetricType::Gauge));
  AddSample(&memory, "kind", "wanted", static_cast<double>(sum.wanted_memory_bytes));
  AddSample(&memory, "kind", "requested", static_cast<double>(sum.requested_memory_bytes));
  AddSample(&memory, "kind", "actual", static_cast<double>(sum.memory_bytes));
  AddSample(&memory, "kind", "used", static_cast<double>(used));
  MetricFamily& vcpus = families->emplace_back(
      NewFamily("husk_vm_vcpus", "vCPUs of all VMs together, by what is known of them.", MetricType::Gauge));
  AddSample(&vcpus, "kind", "wanted", sum.wanted_vcpus);
  AddSample(&vcpus, "kind", "plugged", sum.vcpus);
  AddSample(&vcpus, "kind", "online", sum.online_vcpus);
  AddOne(families, "husk_vms_resizing", "VMs whose resize is under way or owed.", MetricType::Gauge,
         static_cast<double>(resizing));
}

void AddEvents(sandbox::EventHub& events, std::vector<MetricFamily>* families) {
  const sandbox::EventHub::Counters counters = events.counters();
  AddOne(families, "husk_events_total", "Events of pods and containers that were told to somebody.",
         MetricType::Counter, static_cast<double>(counters.published));
  AddOne(families, "husk_event_subscribers", "Who listens to events now.", MetricType::Gauge,
         static_cast<double>(counters.subscribers));
  AddOne(families, "husk_event_subscribers_cut_off_total", "Subscribers that were too slow for the events.",
         MetricType::Counter, static_cast<double>(counters.cut_off));
}

}  // namespace

void AddSampledFigures(const MetricSources& sources, std::vector<MetricFamily>* families) {
  if (sources.lanes != nullptr) AddLanes(*sources.lanes, families);
  if (sources.runtime != nullptr) {
    AddStates(*sources.runtime, families);
    AddVms(*sources.runtime, families);
  }
  if (sources.events != nullptr) AddEvents(*sources.events, families);
}

}  // namespace husk::cri
