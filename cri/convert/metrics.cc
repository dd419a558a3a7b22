#include "cri/convert/metrics.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cri/convert/common.h"

namespace husk::cri {
namespace {

using Figure = std::optional<std::uint64_t>;
using Metrics = google::protobuf::RepeatedPtrField<api::Metric>;

constexpr std::uint64_t kSecond = 1'000'000'000;

// Of every metric; others follow.
constexpr const char* kLabels[] = {"container", "id", "image", "name", "namespace", "pod"};

struct Kind {
  const char* name;
  const char* help;
  api::MetricType type;
  const char* first_label = nullptr;  // beside the common ones
  const char* second_label = nullptr;
};

constexpr Kind kKinds[] = {
    {"container_last_seen", "When the figures were taken, in seconds since 1970", api::GAUGE},
    {"container_start_time_seconds", "When it was started, in seconds since 1970", api::GAUGE},
    {"container_cpu_usage_seconds_total", "Processor time used, in seconds", api::COUNTER, "cpu"},
    {"container_cpu_user_seconds_total", "Processor time used in user mode, in seconds", api::COUNTER},
    {"container_cpu_system_seconds_total", "Processor time used in the kernel, in seconds", api::COUNTER},
    {"container_cpu_cfs_periods_total", "Periods of the processor quota that have passed", api::COUNTER},
    {"container_cpu_cfs_throttled_periods_total", "Periods in which the processor quota was used up", api::COUNTER},
    {"container_cpu_cfs_throttled_seconds_total", "Time spent waiting for the next period, in seconds", api::COUNTER},
    {"container_spec_cpu_period", "Period of the processor quota, in microseconds", api::GAUGE},
    {"container_spec_cpu_quota", "Processor quota in each period, in microseconds", api::GAUGE},
    {"container_spec_cpu_shares", "Weight of its share of the processors", api::GAUGE},
    {"container_memory_usage_bytes", "Memory in use, whenever it was used last", api::GAUGE},
    {"container_memory_working_set_bytes", "Memory in use without files that could be dropped at once", api::GAUGE},
    {"container_memory_rss", "Anonymous memory", api::GAUGE},
    {"container_memory_cache", "Memory of the page cache", api::GAUGE},
    {"container_memory_mapped_file", "Memory of mapped files", api::GAUGE},
    {"container_memory_kernel_usage", "Memory that the kernel holds for it", api::GAUGE},
    {"container_memory_swap", "Memory that is swapped out", api::GAUGE},
    {"container_memory_max_usage_bytes", "The most memory that was ever in use", api::GAUGE},
    {"container_memory_failcnt", "How often usage was about to exceed the limit", api::COUNTER},
    {"container_memory_failures_total", "Page faults", api::COUNTER, "failure_type", "scope"},
    {"container_oom_events_total", "Processes killed for lack of memory", api::COUNTER},
    {"container_spec_memory_limit_bytes", "Limit of the memory", api::GAUGE},
    {"container_fs_usage_bytes", "What the writable layer takes on the pod's scratch disk", api::GAUGE, "device"},
    {"container_fs_limit_bytes", "What the pod's scratch disk can hold", api::GAUGE, "device"},
    {"container_fs_reads_bytes_total", "Bytes read from disks", api::COUNTER, "device"},
    {"container_fs_reads_total", "Reads from disks", api::COUNTER, "device"},
    {"container_fs_writes_bytes_total", "Bytes written to disks", api::COUNTER, "device"},
    {"container_fs_writes_total", "Writes to disks", api::COUNTER, "device"},
    {"container_network_receive_bytes_total", "Bytes received", api::COUNTER, "interface"},
    {"container_network_receive_packets_total", "Packets received", api::COUNTER, "interface"},
    {"container_network_receive_errors_total", "Errors of receiving", api::COUNTER, "interface"},
    {"container_network_receive_packets_dropped_total", "Packets dropped in receiving", api::COUNTER, "interface"},
    {"container_network_transmit_bytes_total", "Bytes sent", api::COUNTER, "interface"},
    {"container_network_transmit_packets_total", "Packets sent", api::COUNTER, "interface"},
    {"container_network_transmit_errors_total", "Errors of sending", api::COUNTER, "interface"},
    {"container_network_transmit_packets_dropped_total", "Packets dropped in sending", api::COUNTER, "interface"},
    {"container_processes", "Processes", api::GAUGE},
    {"container_threads", "Threads", api::GAUGE},
    {"container_pressure_cpu_waiting_seconds_total", "Time in which a task waited for a processor", api::COUNTER},
    {"container_pressure_cpu_stalled_seconds_total", "Time in which all tasks waited for a processor", api::COUNTER},
    {"container_pressure_memory_waiting_seconds_total", "Time in which a task waited for memory", api::COUNTER},
    {"container_pressure_memory_stalled_seconds_total", "Time in which all tasks waited for memory", api::COUNTER},
    {"container_pressure_io_waiting_seconds_total", "Time in which a task waited for a disk", api::COUNTER},
    {"container_pressure_io_stalled_seconds_total", "Time in which all tasks waited for a disk", api::COUNTER},
    {"husk_pod_vm_memory_wanted_bytes", "Memory that the pod's VM shall have for its containers", api::GAUGE},
    {"husk_pod_vm_memory_requested_bytes", "Memory that the guest was told to have", api::GAUGE},
    {"husk_pod_vm_memory_actual_bytes", "Memory that the pod's VM has", api::GAUGE},
    {"husk_pod_vm_memory_used_bytes", "Memory in use in the guest, its kernel's included", api::GAUGE},
    {"husk_pod_vm_vcpus_wanted", "vCPUs that the pod's VM shall have for its containers", api::GAUGE},
    {"husk_pod_vm_vcpus_plugged", "vCPUs that the pod's VM has", api::GAUGE},
    {"husk_pod_vm_vcpus_online", "vCPUs that the guest uses; 0: in doubt", api::GAUGE},
    {"husk_pod_vm_resizing", "1 while a resize of the pod's VM is under way or owed", api::GAUGE},
};

// Metrics of one subject: a container, or the pod.
class Writer {
 public:
  Writer(std::vector<std::string> labels, std::int64_t timestamp, Metrics* out)
      : labels_(std::move(labels)), timestamp_(timestamp), out_(out) {}

  // `others`: the values of the kind's own labels. Every name is in the table; a test looks.
  void Add(std::string_view name, const Figure& value, const std::vector<std::string>& others = {}) {
    const Kind* const kind =
        std::find_if(std::begin(kKinds), std::end(kKinds), [name](const Kind& each) { return name == each.name; });
    if (!value || kind == std::end(kKinds)) return;
    api::Metric* const metric = out_->Add();
    metric->set_name(std::string(name));
    metric->set_timestamp(timestamp_);
    metric->set_metric_type(kind->type);
    for (const std::string& label : labels_) metric->add_label_values(label);
    for (const std::string& label : others) metric->add_label_values(label);
    metric->mutable_value()->set_value(*value);
  }
  void AddSeconds(std::string_view name, const Figure& nanoseconds, const std::vector<std::string>& others = {}) {
    Add(name, nanoseconds ? Figure(*nanoseconds / kSecond) : std::nullopt, others);
  }

 private:
  const std::vector<std::string> labels_;
  const std::int64_t timestamp_;
  Metrics* const out_;
};

Figure Positive(std::int64_t value) {
  return value > 0 ? Figure(static_cast<std::uint64_t>(value)) : std::nullopt;
}

void AddCpu(const sandbox::CpuFigures& cpu, const sandbox::LinuxResources& limits, Writer& writer) {
  writer.AddSeconds("container_cpu_usage_seconds_total", cpu.usage_nanoseconds, {"total"});
  writer.AddSeconds("container_cpu_user_seconds_total", cpu.user_nanoseconds);
  writer.AddSeconds("container_cpu_system_seconds_total", cpu.system_nanoseconds);
  writer.Add("container_cpu_cfs_periods_total", cpu.periods);
  writer.Add("container_cpu_cfs_throttled_periods_total", cpu.throttled_periods);
  writer.AddSeconds("container_cpu_cfs_throttled_seconds_total", cpu.throttled_nanoseconds);
  writer.Add("container_spec_cpu_period", Positive(limits.cpu_period));
  writer.Add("container_spec_cpu_quota", Positive(limits.cpu_quota));
  writer.Add("container_spec_cpu_shares", Positive(limits.cpu_shares));
}

void AddMemory(const sandbox::MemoryFigures& memory, const sandbox::LinuxResources& limits, Writer& writer) {
  writer.Add("container_memory_usage_bytes", memory.usage_bytes);
  writer.Add("container_memory_working_set_bytes", memory.working_set_bytes);
  writer.Add("container_memory_rss", memory.resident_bytes);
  writer.Add("container_memory_cache", memory.cache_bytes);
  writer.Add("container_memory_mapped_file", memory.mapped_file_bytes);
  writer.Add("container_memory_kernel_usage", memory.kernel_bytes);
  writer.Add("container_memory_swap", memory.swap_bytes);
  writer.Add("container_memory_max_usage_bytes", memory.peak_bytes);
  writer.Add("container_memory_failcnt", memory.limit_failures);
  writer.Add("container_memory_failures_total", memory.page_faults, {"pgfault", "container"});
  writer.Add("container_memory_failures_total", memory.major_page_faults, {"pgmajfault", "container"});
  writer.Add("container_oom_events_total", memory.out_of_memory_kills);
  writer.Add("container_spec_memory_limit_bytes", Positive(limits.memory_limit_bytes));
}

void AddIo(const sandbox::IoFigures& io, Writer& writer) {
  // Over all of the guest's disks.
  writer.Add("container_fs_reads_bytes_total", io.read_bytes, {""});
  writer.Add("container_fs_reads_total", io.reads, {""});
  writer.Add("container_fs_writes_bytes_total", io.written_bytes, {""});
  writer.Add("container_fs_writes_total", io.writes, {""});
}

void AddPressure(const std::optional<sandbox::Pressure>& pressure, const std::string& resource, Writer& writer) {
  if (!pressure) return;
  const std::string prefix = "container_pressure_" + resource;
  writer.AddSeconds(prefix + "_waiting_seconds_total", pressure->some.total_nanoseconds);
  writer.AddSeconds(prefix + "_stalled_seconds_total", pressure->full.total_nanoseconds);
}

void AddCgroup(const sandbox::CgroupFigures& cgroup, const sandbox::LinuxResources& limits, Writer& writer) {
  AddCpu(cgroup.cpu, limits, writer);
  AddMemory(cgroup.memory, limits, writer);
  AddIo(cgroup.io, writer);
  writer.Add("container_processes", cgroup.processes);
  writer.Add("container_threads", cgroup.threads);
  AddPressure(cgroup.cpu.pressure, "cpu", writer);
  AddPressure(cgroup.memory.pressure, "memory", writer);
  AddPressure(cgroup.io.pressure, "io", writer);
}

void AddInterface(const sandbox::InterfaceFigures& interface, Writer& writer) {
  const std::vector<std::string> label = {interface.name};
  writer.Add("container_network_receive_bytes_total", interface.received_bytes, label);
  writer.Add("container_network_receive_packets_total", interface.received_packets, label);
  writer.Add("container_network_receive_errors_total", interface.receive_errors, label);
  writer.Add("container_network_receive_packets_dropped_total", interface.receive_drops, label);
  writer.Add("container_network_transmit_bytes_total", interface.sent_bytes, label);
  writer.Add("container_network_transmit_packets_total", interface.sent_packets, label);
  writer.Add("container_network_transmit_errors_total", interface.send_errors, label);
  writer.Add("container_network_transmit_packets_dropped_total", interface.send_drops, label);
}

void AddVm(const sandbox::VmFigures& vm, Writer& writer) {
  writer.Add("husk_pod_vm_memory_wanted_bytes", vm.wanted_memory_bytes);
  writer.Add("husk_pod_vm_memory_requested_bytes", vm.requested_memory_bytes);
  writer.Add("husk_pod_vm_memory_actual_bytes", vm.memory_bytes);
  writer.Add("husk_pod_vm_memory_used_bytes", vm.used_memory_bytes);
  writer.Add("husk_pod_vm_vcpus_wanted", vm.wanted_vcpus);
  writer.Add("husk_pod_vm_vcpus_plugged", vm.vcpus);
  writer.Add("husk_pod_vm_vcpus_online", vm.online_vcpus);
  writer.Add("husk_pod_vm_resizing", vm.resizing ? 1U : 0U);
}

void AddContainer(const sandbox::ContainerStats& container, const sandbox::PodStats& pod, api::ContainerMetrics* out) {
  const sandbox::ContainerStatus& status = container.status;
  const sandbox::PodMetadata& metadata = pod.status.config.metadata;
  out->set_container_id(status.id);
  if (container.timestamp == 0) return;
  Writer writer({status.config.metadata.name, status.id, status.image_reference, status.id,
                 metadata.kubernetes_namespace, metadata.name},
                container.timestamp, out->mutable_metrics());
  writer.AddSeconds("container_last_seen", Positive(container.timestamp));
  writer.AddSeconds("container_start_time_seconds", Positive(status.started_at));
  AddCgroup(container.figures.cgroup, status.config.resources, writer);
  if (!container.figures.writable_layer) return;
  writer.Add("container_fs_usage_bytes", container.figures.writable_layer->used_bytes, {"scratch"});
  writer.Add("container_fs_limit_bytes", pod.figures.scratch_capacity_bytes, {"scratch"});
}

}  // namespace

void MetricDescriptorsToProto(google::protobuf::RepeatedPtrField<api::MetricDescriptor>* out) {
  for (const Kind& kind : kKinds) {
    api::MetricDescriptor* const descriptor = out->Add();
    descriptor->set_name(kind.name);
    descriptor->set_help(kind.help);
    for (const char* label : kLabels) descriptor->add_label_keys(label);
    for (const char* label : {kind.first_label, kind.second_label}) {
      if (label != nullptr) descriptor->add_label_keys(label);
    }
  }
}

void PodMetricsToProto(const sandbox::PodStats& stats, api::PodSandboxMetrics* out) {
  const sandbox::PodMetadata& metadata = stats.status.config.metadata;
  out->set_pod_sandbox_id(stats.status.id);
  for (const sandbox::ContainerStats& container : stats.containers) {
    AddContainer(container, stats, out->add_container_metrics());
  }
  if (stats.figures.timestamp == 0) return;
  // As cAdvisor shows a pod: no container, no image.
  Writer writer({"", stats.status.id, "", "", metadata.kubernetes_namespace, metadata.name}, stats.figures.timestamp,
                out->mutable_metrics());
  writer.AddSeconds("container_last_seen", Positive(stats.figures.timestamp));
  writer.AddSeconds("container_start_time_seconds", Positive(stats.status.created_at));
  AddCgroup(stats.figures.cgroup, stats.status.config.resources, writer);
  for (const sandbox::InterfaceFigures& interface : stats.figures.interfaces) AddInterface(interface, writer);
  if (stats.vm) AddVm(*stats.vm, writer);
}

}  // namespace husk::cri
