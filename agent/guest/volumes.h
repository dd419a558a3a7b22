// The pod's volumes: files that huskd keeps like the host's, empty directories for its containers, and directories of
// the host.
#ifndef HUSK_AGENT_GUEST_VOLUMES_H_
#define HUSK_AGENT_GUEST_VOLUMES_H_

#include <map>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// What agent.proto says of each call. Not thread safe; calls block for as long as their bytes take to be written.
//
// A container may write to a volume while huskd does: no path is followed through a symlink, and none leaves the
// volume.
class Volumes {
 public:
  static constexpr std::size_t kMaximumVolumes = 1024;

  // `memory`: a directory below which tmpfs are mounted. `scratch`: where the scratch disk is mounted, when it is.
  Volumes(std::string memory, std::string scratch);

  Status Create(const v1::CreateVolumeRequest& request);
  Status Change(const v1::ChangeVolumeRequest& request);
  StatusOr<v1::ReadVolumeResponse> Read(const v1::ReadVolumeRequest& request);
  Status LookAgain(const v1::LookAgainRequest& request);
  Status Remove(const std::string& volume_id);

  // The directories whose files are in the guest.
  struct Tree {
    std::string volume_id;
    std::string path;
    bool in_memory = false;  // then it is alone on its file system
  };
  [[nodiscard]] std::vector<Tree> Trees() const;

  // What crun binds. NOT_FOUND for an unknown volume; INVALID_ARGUMENT for a sub-path that is no directory below it.
  StatusOr<std::string> MountSource(const v1::VolumeMount& mount);

 private:
  struct Volume {
    v1::VolumeMedium medium = v1::VOLUME_MEDIUM_UNSPECIFIED;
    std::string base;  // holds what is mounted, "files", and "staging", where files wait until they are whole
    bool single_file = false;
  };

  Status Make(const v1::CreateVolumeRequest& request, Volume& volume);
  StatusOr<Volume*> Find(const std::string& volume_id);
  Status Apply(const Volume& volume, const v1::FileOperation& operation);

  const std::string memory_;
  const std::string scratch_;
  std::map<std::string, Volume> volumes_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_VOLUMES_H_
