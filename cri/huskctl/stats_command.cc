#include "cri/huskctl/stats_command.h"

#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "agent/common/context.h"
#include "cri/huskctl/commands.h"
#include "cri/huskctl/support.h"

namespace husk::huskctl {
namespace {

// A rate needs two samples that lie so far apart.
constexpr auto kBetweenSamples = std::chrono::milliseconds(1100);

std::string Seconds(const api::CpuUsage& cpu) {
  if (!cpu.has_usage_core_nano_seconds()) return kUnknown;
  return absl::StrFormat("%.1f s", static_cast<double>(cpu.usage_core_nano_seconds().value()) / 1e9);
}

std::string Traffic(const api::NetworkUsage& network) {
  if (!network.has_default_interface()) return kUnknown;
  const api::NetworkInterfaceUsage& interface = network.default_interface();
  return absl::StrCat(ReadableBytes(interface.rx_bytes().value()), " / ", ReadableBytes(interface.tx_bytes().value()));
}

using Row = std::vector<std::string>;

std::vector<Row> Rows(const api::ListPodSandboxStatsResponse& pods) {
  std::vector<Row> rows = {{"POD", "CONTAINER", "CPU", "CPU TIME", "MEMORY", "FILES", "RECEIVED / SENT", "PROCESSES"}};
  for (const api::PodSandboxStats& pod : pods.stats()) {
    const api::LinuxPodSandboxStats& linux = pod.linux();
    const std::string name = pod.attributes().metadata().name();
    const api::UInt64Value& processes = linux.process().process_count();
    rows.push_back({name, "", Cores(linux.cpu()), Seconds(linux.cpu()),
                    Bytes(linux.memory().has_working_set_bytes(), linux.memory().working_set_bytes()), "",
                    Traffic(linux.network()), linux.has_process() ? absl::StrCat(processes.value()) : kUnknown});
    for (const api::ContainerStats& container : linux.containers()) {
      rows.push_back({name, container.attributes().metadata().name(), Cores(container.cpu()), Seconds(container.cpu()),
                      Bytes(container.memory().has_working_set_bytes(), container.memory().working_set_bytes()),
                      Bytes(container.writable_layer().has_used_bytes(), container.writable_layer().used_bytes()), "",
                      ""});
    }
  }
  return rows;
}

void Add(nlohmann::json& object, const char* key, bool known, const api::UInt64Value& value) {
  if (known) object[key] = value.value();
}

void AddCpuAndMemory(const api::CpuUsage& cpu, const api::MemoryUsage& memory, nlohmann::json& object) {
  Add(object, "cpuNanoseconds", cpu.has_usage_core_nano_seconds(), cpu.usage_core_nano_seconds());
  Add(object, "cpuNanoCores", cpu.has_usage_nano_cores(), cpu.usage_nano_cores());
  Add(object, "memoryWorkingSetBytes", memory.has_working_set_bytes(), memory.working_set_bytes());
  Add(object, "memoryUsageBytes", memory.has_usage_bytes(), memory.usage_bytes());
  Add(object, "memoryResidentBytes", memory.has_rss_bytes(), memory.rss_bytes());
  if (cpu.timestamp() > 0) object["timestamp"] = cpu.timestamp();
}

nlohmann::json ToJson(const api::ContainerStats& container) {
  nlohmann::json object = {{"id", container.attributes().id()}, {"name", container.attributes().metadata().name()}};
  AddCpuAndMemory(container.cpu(), container.memory(), object);
  const api::FilesystemUsage& layer = container.writable_layer();
  Add(object, "writableLayerBytes", layer.has_used_bytes(), layer.used_bytes());
  Add(object, "writableLayerInodes", layer.has_inodes_used(), layer.inodes_used());
  return object;
}

nlohmann::json ToJson(const api::PodSandboxStats& pod) {
  nlohmann::json figures = {{"id", pod.attributes().id()},
                            {"name", pod.attributes().metadata().name()},
                            {"namespace", pod.attributes().metadata().namespace_()}};
  AddCpuAndMemory(pod.linux().cpu(), pod.linux().memory(), figures);
  const api::ProcessUsage& process = pod.linux().process();
  Add(figures, "processes", process.has_process_count(), process.process_count());
  if (pod.linux().network().has_default_interface()) {
    const api::NetworkInterfaceUsage& interface = pod.linux().network().default_interface();
    figures["interface"] = interface.name();
    figures["receivedBytes"] = interface.rx_bytes().value();
    figures["sentBytes"] = interface.tx_bytes().value();
  }
  nlohmann::json containers = nlohmann::json::array();
  for (const api::ContainerStats& container : pod.linux().containers()) containers.push_back(ToJson(container));
  return {{"pod", std::move(figures)}, {"containers", std::move(containers)}};
}

}  // namespace

std::string Cores(const api::CpuUsage& cpu) {
  if (!cpu.has_usage_nano_cores()) return kUnknown;
  return absl::StrFormat("%.3f", static_cast<double>(cpu.usage_nano_cores().value()) / 1e9);
}

std::string Bytes(bool known, const api::UInt64Value& value) {
  return known ? ReadableBytes(value.value()) : kUnknown;
}

StatusOr<api::ListPodSandboxStatsResponse> SampleStats(Client& client, const std::string& pod) {
  api::ListPodSandboxStatsRequest request;
  if (!pod.empty()) {
    HUSK_ASSIGN_OR_RETURN(const api::PodSandbox found, FindPod(client, pod));
    request.mutable_filter()->set_id(found.id());
  }
  HUSK_RETURN_IF_ERROR(client.Call(request).status());
  HUSK_RETURN_IF_ERROR(SleepFor(Context::Background(), kBetweenSamples));
  return client.Call(request);
}

StatusOr<int> Stats(Client& client, const std::string& pod, bool json) {
  HUSK_ASSIGN_OR_RETURN(const api::ListPodSandboxStatsResponse pods, SampleStats(client, pod));
  if (json) {
    nlohmann::json list = nlohmann::json::array();
    for (const api::PodSandboxStats& each : pods.stats()) list.push_back(ToJson(each));
    std::printf("%s\n", list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return 0;
  }
  std::fputs(Table(Rows(pods)).c_str(), stdout);
  return 0;
}

}  // namespace husk::huskctl
