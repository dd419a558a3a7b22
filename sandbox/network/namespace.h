// Named network namespaces: bound to files below one directory, as `ip netns` does it.
#ifndef HUSK_SANDBOX_NETWORK_NAMESPACE_H_
#define HUSK_SANDBOX_NETWORK_NAMESPACE_H_

#include <functional>
#include <string>
#include <vector>

#include "agent/common/mutex.h"
#include "agent/common/status.h"

namespace husk::sandbox {

// Both run `work` on a thread of its own inside the namespace and wait for it, so that the caller's thread never
// changes namespace.
Status RunInNamespace(const std::string& path, const std::function<Status()>& work);
// In a new namespace that ends with the thread, unless `work` binds it somewhere.
Status RunInNewNamespace(const std::function<Status()>& work);

// Thread safe. Ids must have passed CheckPodId.
class NamespaceDirectory {
 public:
  explicit NamespaceDirectory(std::string directory) : directory_(std::move(directory)) {}

  [[nodiscard]] std::string PathOf(const std::string& id) const;
  // A new namespace with its loopback up. ALREADY_EXISTS if there is one of that name.
  Status Create(const std::string& id);
  // Idempotent. The kernel frees the namespace when nothing else is in it.
  Status Remove(const std::string& id);
  [[nodiscard]] StatusOr<std::vector<std::string>> List() const;

 private:
  Status ShareDirectory() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnshareDirectory() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string directory_;
  Mutex mutex_;  // held while the directory's own mount is made, used or taken away
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_NAMESPACE_H_
