// The disks that a pod's VM has for its containers: images, and block devices of the host. One for all containers that
// use the same thing; it is unplugged when the last of them goes.
#ifndef HUSK_SANDBOX_CONTAINER_DISKS_H_
#define HUSK_SANDBOX_CONTAINER_DISKS_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/rollback.h"
#include "agent/common/status.h"
#include "hypervisor/hypervisor.h"
#include "images/image_service.h"
#include "sandbox/pod.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// The disks of a container that is being made, under its pod's turn. What is plugged in is unplugged again by
// `rollback`, which has to outlive this. Not thread safe.
class ContainerDisks {
 public:
  ContainerDisks(const Context& context, images::ImageService& images, const Pod& pod,
                 std::shared_ptr<hypervisor::Vm> vm, Rollback& rollback);

  // The LUN of the container's own image.
  StatusOr<std::uint32_t> AttachImage(const images::ImageLease& lease);
  // Those of the mounts that are of images, into the specification. Errors begin as the kubelet knows them,
  // "ImageVolumeMountFailed: "; NOT_FOUND if the image is not there.
  Status AddImageMounts(const std::vector<ContainerMount>& mounts, agent::v1::ContainerSpec& spec);
  Status AddDevices(const std::vector<ContainerDevice>& devices, agent::v1::ContainerSpec& spec);

  // All but the container's own image.
  [[nodiscard]] const std::vector<ContainerDisk>& disks() const { return disks_; }

 private:
  StatusOr<std::uint32_t> Attach(const std::string& key, const hypervisor::DiskConfig& disk);
  Status AddDevice(const ContainerDevice& device, agent::v1::ContainerSpec& spec);

  const Context& context_;
  images::ImageService& images_;
  const Pod& pod_;
  const std::shared_ptr<hypervisor::Vm> vm_;
  Rollback& rollback_;
  std::vector<ContainerDisk> attached_;  // whatever this one uses
  std::vector<ContainerDisk> disks_;
};

// Of an image's disk; "" for what is no image's.
std::string ImageOfDisk(const ContainerDisk& disk);
// All of the container's, its image's with them.
std::set<std::uint32_t> LunsOf(const Container& container);
// Unplugs those that no other container of the pod uses. The guest must have let go of them. Repeatable.
Status DetachDisks(const Context& context, const Pod& pod, const Container& container);

// The guest's words for a failed image volume stand at the beginning, where the kubelet looks for them.
Status ExplainImageVolume(const Status& created);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_CONTAINER_DISKS_H_
