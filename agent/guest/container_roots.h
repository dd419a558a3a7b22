// The root file systems of containers: an image's EROFS disk below, a directory of the scratch disk above.
#ifndef HUSK_AGENT_GUEST_CONTAINER_ROOTS_H_
#define HUSK_AGENT_GUEST_CONTAINER_ROOTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "agent/common/status.h"
#include "agent/guest/children.h"
#include "agent/guest/event_loop.h"

namespace husk::agent {

// Not thread safe. `done` may be called before the call returns. A test's double mounts nothing.
class ContainerRoots {
 public:
  virtual ~ContainerRoots() = default;
  // The path of the mounted root. The images of `volume_luns` are mounted too and belong to the container like its own,
  // until Release. Errors: FAILED_PRECONDITION (no such disk, no EROFS on it, no scratch disk yet).
  virtual void Prepare(const std::string& id, std::uint32_t image_lun, const std::set<std::uint32_t>& volume_luns,
                       std::function<void(StatusOr<std::string>)> done) = 0;
  // Where an image that was prepared is mounted.
  [[nodiscard]] virtual std::string ImagePath(std::uint32_t lun) const = 0;
  // Unmounts and removes; when OK and no other container uses the image, nothing holds its disk open. May be repeated;
  // OK for an unknown id.
  virtual void Release(const std::string& id, std::function<void(Status)> done) = 0;
  // The directory that holds what the container has written; empty if there is none.
  [[nodiscard]] virtual std::string WritableLayer(const std::string& id) const = 0;
};

class DiskContainerRoots : public ContainerRoots {
 public:
  // `base`: below it images and roots are mounted. `scratch`: where the scratch disk is mounted, when it is.
  DiskContainerRoots(EventLoop& loop, Children& children, std::string base, std::string scratch);

  void Prepare(const std::string& id, std::uint32_t image_lun, const std::set<std::uint32_t>& volume_luns,
               std::function<void(StatusOr<std::string>)> done) override;
  [[nodiscard]] std::string ImagePath(std::uint32_t lun) const override;
  void Release(const std::string& id, std::function<void(Status)> done) override;
  [[nodiscard]] std::string WritableLayer(const std::string& id) const override;

 private:
  struct Image {
    std::string disk;  // /dev/sdX
    std::set<std::string> users;
    bool unmounted = false;  // but the kernel still uses the disk
  };
  Status MountImages(const std::string& id, const std::set<std::uint32_t>& luns);
  Status MountImage(std::uint32_t lun);
  StatusOr<std::string> MountOverlay(const std::string& id, std::uint32_t lun);
  void ReleaseImages(const std::string& id, std::function<void(Status)> done);
  Status ReleaseImage(std::uint32_t lun);
  void RemoveFiles(const std::string& id, const std::function<void(Status)>& done);
  [[nodiscard]] std::string RootPath(const std::string& id) const;
  [[nodiscard]] std::string UpperPath(const std::string& id) const;

  EventLoop& loop_;
  Children& children_;
  const std::string base_;
  const std::string scratch_;
  std::map<std::uint32_t, Image> images_;
  std::map<std::string, std::set<std::uint32_t>> luns_;  // of the containers' images
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CONTAINER_ROOTS_H_
