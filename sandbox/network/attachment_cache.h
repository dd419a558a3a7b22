// What DEL needs to know of ADD, kept in a file a pod so that any later process can undo it.
#ifndef HUSK_SANDBOX_NETWORK_ATTACHMENT_CACHE_H_
#define HUSK_SANDBOX_NETWORK_ATTACHMENT_CACHE_H_

#include <string>
#include <vector>

#include "agent/common/status.h"
#include "sandbox/network/cni_exec.h"

namespace husk::sandbox {

// Thread safe for different ids; calls for one id take turns elsewhere. Ids must have passed CheckPodId.
class AttachmentCache {
 public:
  // `directory` is made when first needed.
  explicit AttachmentCache(std::string directory) : directory_(std::move(directory)) {}

  // On the disk when it returns: written aside, synced, renamed.
  [[nodiscard]] Status Save(const CniAttachment& attachment) const;
  // NOT_FOUND if nothing was saved; DATA_LOSS if what is there cannot be read.
  [[nodiscard]] StatusOr<CniAttachment> Load(const std::string& pod_id) const;
  // OK if it is not there.
  [[nodiscard]] Status Remove(const std::string& pod_id) const;
  [[nodiscard]] StatusOr<std::vector<std::string>> List() const;

 private:
  [[nodiscard]] std::string PathOf(const std::string& pod_id) const;

  const std::string directory_;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_ATTACHMENT_CACHE_H_
