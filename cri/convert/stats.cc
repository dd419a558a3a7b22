#include "cri/convert/stats.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "cri/convert/common.h"

namespace husk::cri {
namespace {

using Figure = std::optional<std::uint64_t>;

// Sets a UInt64Value if there is a value for it.
template <typename Message>
void Set(const Figure& value, Message* message, api::UInt64Value* (Message::*field)()) {
  if (value) (message->*field)()->set_value(*value);
}

void ToProto(const sandbox::PressureShare& share, api::PsiData* out) {
  out->set_total(share.total_nanoseconds);
  out->set_avg10(share.average10);
  out->set_avg60(share.average60);
  out->set_avg300(share.average300);
}

void ToProto(const std::optional<sandbox::Pressure>& pressure, api::PsiStats* out) {
  ToProto(pressure->some, out->mutable_some());
  ToProto(pressure->full, out->mutable_full());
}

void ToProto(const sandbox::CpuFigures& cpu, std::int64_t timestamp, api::CpuUsage* out) {
  out->set_timestamp(timestamp);
  Set(cpu.usage_nanoseconds, out, &api::CpuUsage::mutable_usage_core_nano_seconds);
  Set(cpu.usage_nano_cores, out, &api::CpuUsage::mutable_usage_nano_cores);
  if (cpu.pressure) ToProto(cpu.pressure, out->mutable_psi());
}

// `limit` 0: none.
void ToProto(const sandbox::MemoryFigures& memory, std::int64_t timestamp, std::int64_t limit, api::MemoryUsage* out) {
  out->set_timestamp(timestamp);
  Set(memory.usage_bytes, out, &api::MemoryUsage::mutable_usage_bytes);
  Set(memory.working_set_bytes, out, &api::MemoryUsage::mutable_working_set_bytes);
  Set(memory.resident_bytes, out, &api::MemoryUsage::mutable_rss_bytes);
  Set(memory.page_faults, out, &api::MemoryUsage::mutable_page_faults);
  Set(memory.major_page_faults, out, &api::MemoryUsage::mutable_major_page_faults);
  if (memory.working_set_bytes && limit > 0) {
    const auto bytes = static_cast<std::uint64_t>(limit);
    out->mutable_available_bytes()->set_value(bytes - std::min(bytes, *memory.working_set_bytes));
  }
  if (memory.pressure) ToProto(memory.pressure, out->mutable_psi());
}

void ToProto(const sandbox::MemoryFigures& memory, std::int64_t timestamp, api::SwapUsage* out) {
  out->set_timestamp(timestamp);
  Set(memory.swap_bytes, out, &api::SwapUsage::mutable_swap_usage_bytes);
  if (memory.swap_limit_bytes) {
    const std::uint64_t limit = *memory.swap_limit_bytes;
    out->mutable_swap_available_bytes()->set_value(limit - std::min(limit, *memory.swap_bytes));
  }
}

void ToProto(const sandbox::IoFigures& io, std::int64_t timestamp, api::IoUsage* out) {
  out->set_timestamp(timestamp);
  ToProto(io.pressure, out->mutable_psi());
}

void ToProto(const sandbox::InterfaceFigures& interface, api::NetworkInterfaceUsage* out) {
  out->set_name(interface.name);
  out->mutable_rx_bytes()->set_value(interface.received_bytes);
  out->mutable_rx_errors()->set_value(interface.receive_errors);
  out->mutable_tx_bytes()->set_value(interface.sent_bytes);
  out->mutable_tx_errors()->set_value(interface.send_errors);
}

void NetworkToProto(const sandbox::PodStats& stats, api::NetworkUsage* out) {
  out->set_timestamp(stats.figures.timestamp);
  for (const sandbox::InterfaceFigures& interface : stats.figures.interfaces) {
    ToProto(interface,
            interface.name == stats.default_interface ? out->mutable_default_interface() : out->add_interfaces());
  }
}

}  // namespace

sandbox::PodFilter PodFilterFromProto(const api::PodSandboxStatsFilter& filter) {
  return {.id = filter.id(), .state = std::nullopt, .labels = FromProtoMap(filter.label_selector())};
}

sandbox::ContainerFilter ContainerFilterFromProto(const api::ContainerStatsFilter& filter) {
  return {.id = filter.id(),
          .pod_id = filter.pod_sandbox_id(),
          .state = std::nullopt,
          .labels = FromProtoMap(filter.label_selector())};
}

void ContainerStatsToProto(const sandbox::ContainerStats& stats, const std::string& scratch_directory,
                           api::ContainerStats* out) {
  const sandbox::ContainerConfig& config = stats.status.config;
  out->mutable_attributes()->set_id(stats.status.id);
  out->mutable_attributes()->mutable_metadata()->set_name(config.metadata.name);
  out->mutable_attributes()->mutable_metadata()->set_attempt(config.metadata.attempt);
  ToProtoMap(config.labels, out->mutable_attributes()->mutable_labels());
  ToProtoMap(config.annotations, out->mutable_attributes()->mutable_annotations());
  const sandbox::CgroupFigures& cgroup = stats.figures.cgroup;
  if (cgroup.cpu.usage_nanoseconds) ToProto(cgroup.cpu, stats.timestamp, out->mutable_cpu());
  if (cgroup.memory.usage_bytes) {
    ToProto(cgroup.memory, stats.timestamp, config.resources.memory_limit_bytes, out->mutable_memory());
  }
  if (cgroup.memory.swap_bytes) ToProto(cgroup.memory, stats.timestamp, out->mutable_swap());
  if (cgroup.io.pressure) ToProto(cgroup.io, stats.timestamp, out->mutable_io());
  if (!stats.figures.writable_layer) return;
  const sandbox::FileFigures& layer = *stats.figures.writable_layer;
  api::FilesystemUsage* const files = out->mutable_writable_layer();
  files->set_timestamp(layer.timestamp);
  files->mutable_fs_id()->set_mountpoint(scratch_directory);
  files->mutable_used_bytes()->set_value(layer.used_bytes);
  files->mutable_inodes_used()->set_value(layer.inodes);
}

void PodStatsToProto(const sandbox::PodStats& stats, const std::string& scratch_directory, api::PodSandboxStats* out) {
  const sandbox::PodConfig& config = stats.status.config;
  api::PodSandboxAttributes* const attributes = out->mutable_attributes();
  attributes->set_id(stats.status.id);
  attributes->mutable_metadata()->set_name(config.metadata.name);
  attributes->mutable_metadata()->set_uid(config.metadata.uid);
  attributes->mutable_metadata()->set_namespace_(config.metadata.kubernetes_namespace);
  attributes->mutable_metadata()->set_attempt(config.metadata.attempt);
  ToProtoMap(config.labels, attributes->mutable_labels());
  ToProtoMap(config.annotations, attributes->mutable_annotations());
  api::LinuxPodSandboxStats* const linux = out->mutable_linux();
  for (const sandbox::ContainerStats& container : stats.containers) {
    ContainerStatsToProto(container, scratch_directory, linux->add_containers());
  }
  const std::int64_t timestamp = stats.figures.timestamp;
  if (timestamp == 0) return;
  const sandbox::CgroupFigures& cgroup = stats.figures.cgroup;
  if (cgroup.cpu.usage_nanoseconds) ToProto(cgroup.cpu, timestamp, linux->mutable_cpu());
  if (cgroup.memory.usage_bytes) {
    const std::int64_t limit = config.resources.memory_limit_bytes;
    ToProto(cgroup.memory, timestamp, limit > 0 ? limit + config.overhead.memory_limit_bytes : 0,
            linux->mutable_memory());
  }
  if (cgroup.io.pressure) ToProto(cgroup.io, timestamp, linux->mutable_io());
  if (cgroup.processes) {
    linux->mutable_process()->set_timestamp(timestamp);
    linux->mutable_process()->mutable_process_count()->set_value(*cgroup.processes);
  }
  NetworkToProto(stats, linux->mutable_network());
}

}  // namespace husk::cri
