#include "sandbox/information.h"

#include <nlohmann/json.hpp>
#include <set>

#include "sandbox/oci/oci_config.h"
#include "sandbox/store/json_codec.h"

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
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

StringMap PodInformation(const Pod& pod, const std::string& scratch_path) {
  const PodStatus status = pod.Snapshot(true);
  StringMap information = status.information;
  information["config"] = ToJson(status.config);
  Json disks = Json::array({{{"lun", 0}, {"use", "scratch"}, {"path", scratch_path}}});
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
