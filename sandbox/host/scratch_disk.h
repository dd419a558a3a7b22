// Scratch disks: the sparse, formatted ext4 file under each pod's writable layers.
#ifndef HUSK_SANDBOX_HOST_SCRATCH_DISK_H_
#define HUSK_SANDBOX_HOST_SCRATCH_DISK_H_

#include <cstdint>
#include <string>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"

namespace husk::sandbox {

// Formats one template a size, kept in a directory of which this process is the only user, and copies it for each pod.
// Thread safe: the first call for a size formats while the others wait for it; copies do not wait for each other.
//
// The file system has no journal: it lives no longer than its pod, and after a crash of the VM nobody reads it again.
// Its inode tables count as zeroed, so that the guest does not write them out in the background and fill the file.
class ScratchDisks {
 public:
  // `directory` is made when first needed. `mke2fs` is the path of the formatter.
  explicit ScratchDisks(std::string directory, std::string mke2fs = "/sbin/mke2fs");

  // Makes `path`, a new file of `bytes` (a multiple of 4096, 4 MiB to 16 TiB) with mode 0600, by reflink where the
  // host's file system can, else by copying what is not a hole. ALREADY_EXISTS if `path` is there. On failure nothing
  // is left at `path`.
  Status Create(const Context& context, const std::string& path, std::uint64_t bytes);

 private:
  StatusOr<std::string> Template(const Context& context, std::uint64_t bytes);
  Status Format(const Context& context, const std::string& path, std::uint64_t bytes) const;

  const std::string directory_;
  const std::string mke2fs_;
  Mutex mutex_;  // held while a template is looked up or made
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_HOST_SCRATCH_DISK_H_
