#include "cri/huskctl/top_command.h"

#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cri/huskctl/commands.h"
#include "cri/huskctl/stats_command.h"
#include "cri/huskctl/support.h"

namespace husk::huskctl {
namespace {

using Json = nlohmann::json;
using Row = std::vector<std::string>;

// What verbose status tells of the VM, under the same names.
constexpr const char* kVmNumbers[] = {"vcpus",       "onlineVcpus",          "wantedVcpus",      "usedMemoryBytes",
                                      "memoryBytes", "requestedMemoryBytes", "wantedMemoryBytes"};

Json Vm(const TopPod& pod) {
  Json vm = Json::parse(pod.vm, nullptr, /*allow_exceptions=*/false);
  return vm.is_object() ? vm : Json::object();
}

std::optional<std::uint64_t> Number(const Json& vm, const char* name) {
  const auto found = vm.find(name);
  if (found == vm.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<std::uint64_t>();
}

bool Resizing(const Json& vm) {
  const auto found = vm.find("resizing");
  return found != vm.end() && found->is_boolean() && found->get<bool>();
}

std::string Count(const Json& vm, const char* name) {
  const auto number = Number(vm, name);
  return number ? absl::StrCat(*number) : kUnknown;
}

std::string Size(const Json& vm, const char* name) {
  const auto number = Number(vm, name);
  return number ? ReadableBytes(*number) : kUnknown;
}

const api::ContainerStatus* StatusOf(const TopPod& pod, const std::string& id) {
  for (const api::ContainerStatus& status : pod.containers) {
    if (status.id() == id) return &status;
  }
  return nullptr;
}

std::optional<double> CpuLimit(const api::LinuxContainerResources& limits) {
  if (limits.cpu_quota() <= 0 || limits.cpu_period() <= 0) return std::nullopt;
  return static_cast<double>(limits.cpu_quota()) / static_cast<double>(limits.cpu_period());
}

// Those in force.
std::string Limits(const api::ContainerStatus* status) {
  if (status == nullptr) return kUnknown;
  const api::LinuxContainerResources& limits = status->resources().linux();
  const auto cpu = CpuLimit(limits);
  const std::string cores = cpu ? absl::StrFormat("%.3f", *cpu) : "none";
  const std::int64_t bytes = limits.memory_limit_in_bytes();
  return absl::StrCat(cores, " / ", bytes > 0 ? ReadableBytes(static_cast<std::uint64_t>(bytes)) : "none");
}

void Add(Json& object, const char* key, bool known, const api::UInt64Value& value) {
  if (known) object[key] = value.value();
}

Json ContainerJson(const TopPod& pod, const api::ContainerStats& container) {
  const std::string& id = container.attributes().id();
  Json object = {{"id", id}, {"name", container.attributes().metadata().name()}};
  Add(object, "cpuNanoCores", container.cpu().has_usage_nano_cores(), container.cpu().usage_nano_cores());
  Add(object, "usedMemoryBytes", container.memory().has_working_set_bytes(), container.memory().working_set_bytes());
  const api::ContainerStatus* const status = StatusOf(pod, id);
  if (status == nullptr) return object;
  const api::LinuxContainerResources& limits = status->resources().linux();
  if (limits.memory_limit_in_bytes() > 0) object["memoryLimitBytes"] = limits.memory_limit_in_bytes();
  if (const auto cpu = CpuLimit(limits)) object["cpuLimitCores"] = *cpu;
  return object;
}

Json PodJson(const TopPod& pod) {
  const api::PodSandboxAttributes& attributes = pod.stats.attributes();
  const Json vm = Vm(pod);
  Json object = {{"id", attributes.id()},
                 {"name", attributes.metadata().name()},
                 {"namespace", attributes.metadata().namespace_()},
                 {"resizing", Resizing(vm)}};
  const api::CpuUsage& cpu = pod.stats.linux().cpu();
  Add(object, "cpuNanoCores", cpu.has_usage_nano_cores(), cpu.usage_nano_cores());
  for (const char* name : kVmNumbers) {
    if (const auto number = Number(vm, name)) object[name] = *number;
  }
  return object;
}

// Absent: it was removed meanwhile.
StatusOr<std::optional<TopPod>> Look(Client& client, const api::PodSandboxStats& stats) {
  TopPod pod{.stats = stats, .vm = "", .containers = {}};
  api::PodSandboxStatusRequest request;
  request.set_pod_sandbox_id(stats.attributes().id());
  request.set_verbose(true);
  const auto status = client.Call(request);
  if (absl::IsNotFound(status.status())) return std::optional<TopPod>();
  HUSK_RETURN_IF_ERROR(status.status());
  if (const auto vm = status->info().find("vm"); vm != status->info().end()) pod.vm = vm->second;
  for (const api::ContainerStats& container : stats.linux().containers()) {
    api::ContainerStatusRequest of_container;
    of_container.set_container_id(container.attributes().id());
    auto told = client.Call(of_container);
    if (absl::IsNotFound(told.status())) continue;
    HUSK_RETURN_IF_ERROR(told.status());
    pod.containers.push_back(std::move(*told->mutable_status()));
  }
  return std::optional<TopPod>(std::move(pod));
}

}  // namespace

std::vector<Row> TopRows(const std::vector<TopPod>& pods) {
  std::vector<Row> rows = {{"POD", "CONTAINER", "VCPUS / WANTED", "CPU", "MEMORY USED / ACTUAL / REQUESTED",
                            "LIMITS CPU / MEMORY", "RESIZE"}};
  for (const TopPod& pod : pods) {
    const std::string& name = pod.stats.attributes().metadata().name();
    const Json vm = Vm(pod);
    rows.push_back({name, "", absl::StrCat(Count(vm, "onlineVcpus"), " / ", Count(vm, "wantedVcpus")),
                    Cores(pod.stats.linux().cpu()),
                    absl::StrCat(Size(vm, "usedMemoryBytes"), " / ", Size(vm, "memoryBytes"), " / ",
                                 Size(vm, "requestedMemoryBytes")),
                    "", Resizing(vm) ? "owed" : ""});
    for (const api::ContainerStats& container : pod.stats.linux().containers()) {
      const api::MemoryUsage& memory = container.memory();
      rows.push_back({name, container.attributes().metadata().name(), "", Cores(container.cpu()),
                      Bytes(memory.has_working_set_bytes(), memory.working_set_bytes()),
                      Limits(StatusOf(pod, container.attributes().id())), ""});
    }
  }
  return rows;
}

Json TopJson(const std::vector<TopPod>& pods) {
  Json list = Json::array();
  for (const TopPod& pod : pods) {
    Json containers = Json::array();
    for (const api::ContainerStats& container : pod.stats.linux().containers()) {
      containers.push_back(ContainerJson(pod, container));
    }
    list.push_back({{"pod", PodJson(pod)}, {"containers", std::move(containers)}});
  }
  return list;
}

StatusOr<int> Top(Client& client, const std::string& pod, bool json) {
  HUSK_ASSIGN_OR_RETURN(const api::ListPodSandboxStatsResponse stats, SampleStats(client, pod));
  std::vector<TopPod> pods;
  for (const api::PodSandboxStats& each : stats.stats()) {
    HUSK_ASSIGN_OR_RETURN(auto looked, Look(client, each));
    if (looked) pods.push_back(*std::move(looked));
  }
  if (json) {
    const std::string text = TopJson(pods).dump(2, ' ', false, Json::error_handler_t::replace);
    std::printf("%s\n", text.c_str());
    return 0;
  }
  std::fputs(Table(TopRows(pods)).c_str(), stdout);
  return 0;
}

}  // namespace husk::huskctl
