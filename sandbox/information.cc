#include "sandbox/information.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "sandbox/oci/oci_config.h"
#include "sandbox/resize.h"
#include "sandbox/store/json_codec.h"
#include "sandbox/vm_size.h"
#include "sandbox/wanted_size.h"

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Arguments are Husk's own, but a path may hold any bytes.
Json VmInformation(const hypervisor::VmInformation& information, const VmFigures& figures) {
  Json vm{{"pid", information.process.pid},
          {"accelerator", information.accelerator == hypervisor::Accelerator::kKvm ? "kvm" : "tcg"},
          {"vcpus", figures.vcpus},
          {"onlineVcpus", figures.online_vcpus},
          {"wantedVcpus", figures.wanted_vcpus},
          {"memoryBytes", figures.memory_bytes},
          {"requestedMemoryBytes", figures.requested_memory_bytes},
          {"wantedMemoryBytes", figures.wanted_memory_bytes},
          {"maximumMemoryBytes", information.maximum_memory_bytes},
          {"resizing", figures.resizing},
          {"commandLine", information.command_line}};
  if (figures.used_memory_bytes) vm["usedMemoryBytes"] = *figures.used_memory_bytes;
  return vm;
}

Json ImageDisk(const Container& container) {
  Json disk{{"lun", *container.lun}, {"use", "image"}};
  if (container.lease == nullptr) return disk;
  disk["image"] = container.lease->image().id;
  Json parts = Json::array();
  for (const images::DiskPart& part : container.lease->disk()) {
    parts.push_back({{"path", part.path}, {"length", part.length}});
  }
  disk["parts"] = std::move(parts);
  return disk;
}

Json EmptyDirectories(const Pod& pod) {
  Json list = Json::array();
  const auto volumes = pod.volumes();
  if (volumes == nullptr) return list;
  const PodFigures figures = pod.meter().figures();
  for (const auto& [id, path] : volumes->EmptyDirectories()) {
    Json entry{{"id", id}, {"path", path}};
    if (const auto found = figures.volumes.find(id); found != figures.volumes.end()) {
      entry["usedBytes"] = found->second.used_bytes;
      entry["inodes"] = found->second.inodes;
      entry["timestamp"] = found->second.timestamp;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace

std::optional<VmFigures> VmFiguresOf(const Environment& environment, const Pod& pod) {
  const auto information = pod.vm_information();
  if (!information) return std::nullopt;
  const WantedSize wanted = SizeWanted(OptionsFor(environment.options, pod.config().vm_choices), NeedsOf(pod));
  const std::uint64_t plugged = PluggedFor(wanted, information->boot_memory_bytes, information->maximum_memory_bytes);
  auto used = pod.meter().figures().guest_memory_used_bytes;
  if (used) used = std::min(*used, information->memory_bytes);  // whatever the guest says
  return VmFigures{.memory_bytes = information->memory_bytes,
                   .requested_memory_bytes = information->requested_memory_bytes,
                   .wanted_memory_bytes = information->boot_memory_bytes + plugged,
                   .used_memory_bytes = used,
                   .vcpus = information->vcpus,
                   .online_vcpus = pod.online_vcpus(),
                   .wanted_vcpus = std::min(wanted.vcpus, std::max(information->maximum_vcpus, 1U)),
                   .resizing = pod.resizing()};
}

StringMap PodInformation(const Environment& environment, const Pod& pod) {
  const PodStatus status = pod.Snapshot(true);
  StringMap information = status.information;
  const auto vm = pod.vm_information();
  const auto figures = VmFiguresOf(environment, pod);
  if (vm && figures) information["vm"] = Dump(VmInformation(*vm, *figures));
  information["config"] = ToJson(status.config);
  Json disks = Json::array({{{"lun", 0}, {"use", "scratch"}, {"path", environment.paths.scratch(pod.id())}}});
  std::set<std::uint32_t> seen;  // containers share their image's disk
  for (const Container& container : pod.containers()) {
    if (container.lun && seen.insert(*container.lun).second) disks.push_back(ImageDisk(container));
  }
  information["disks"] = Dump(disks);
  information["volumes"] = Dump(EmptyDirectories(pod));
  return information;
}

StringMap ContainerInformation(const Pod& pod, const ContainerStatus& status) {
  Json info{{"sandboxID", pod.id()},
            {"pid", status.guest_pid},
            {"image", {{"id", status.image_id}, {"reference", status.image_reference}}}};
  const auto container = pod.container(status.id);
  if (container && container->lun) info["disk"] = ImageDisk(*container);
  if (container && container->lease != nullptr) {
    const auto config = MakeOciConfig(pod.config(), status.id, status.config, container->lease->image().run);
    if (config.ok()) info["runtimeSpec"] = Json::parse(*config, nullptr, /*allow_exceptions=*/false);
  }
  return {{"info", Dump(info)}};
}

}  // namespace husk::sandbox
