// What a mount of the CRI is a mount of, and how a guest can have it.
#ifndef HUSK_SANDBOX_VOLUMES_VOLUME_SOURCE_H_
#define HUSK_SANDBOX_VOLUMES_VOLUME_SOURCE_H_

#include <cstdint>
#include <string>

#include "agent/common/status.h"
#include "sandbox/types.h"

namespace husk::sandbox {

enum class VolumeKind {
  kFile,   // one file: copied in
  kFiles,  // a directory of files that the kubelet keeps: copied in, and kept like it; a large one: SharedInstead
  kEmptyDirectory,  // the pod's own: made in the guest, never on the host
  kShared,          // any other directory: the host's own, by virtiofs
};

struct VolumeSource {
  // Of the volume in the guest; follows from the path and, of a shared directory, from read_only and follow_mounts.
  std::string id;
  VolumeKind kind = VolumeKind::kFile;
  std::string path;        // on the host, of the whole volume
  std::string sub_path;    // the part of an empty directory that is mounted; empty: all of it
  bool read_only = false;  // of a shared directory: the guest can never write to it
  bool immediate = false;  // of a shared directory: changes of the host show at once, for the price of slower look-ups
  bool follow_mounts = false;         // of a shared directory: what the host mounts below it later is there too
  bool in_memory = false;             // as on the host
  std::uint64_t page_size_bytes = 0;  // of an empty directory of huge pages; 0: it is none
  bool copy_back = false;             // what a container leaves in the file belongs to the host when it exits
  std::uint32_t mode = 0;             // permission bits
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size_bytes = 0;  // of an empty directory in memory or of huge pages; 0: no limit
};

// Recognises volumes by the place that the kubelet gives them below its directory of the pod,
// ".../pods/<pod_uid>/...". INVALID_ARGUMENT if the path is missing or no absolute path; UNIMPLEMENTED, in words that
// say so, for what this version cannot give to a guest.
StatusOr<VolumeSource> FindVolumeSource(const ContainerMount& mount, const std::string& pod_uid);

// The same files (a source of kind kFiles) as a directory of the host, read-only: for content that is too large to be
// copied at each change. The id is another one.
VolumeSource SharedInstead(const VolumeSource& files);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_VOLUMES_VOLUME_SOURCE_H_
