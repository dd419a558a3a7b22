// Keeps two huskd from working in one directory.
#ifndef HUSK_CRI_HUSKD_INSTANCE_LOCK_H_
#define HUSK_CRI_HUSKD_INSTANCE_LOCK_H_

#include <string>
#include <utility>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::cri {

// Held as long as the object lives; ends with the process in any case. Child processes do not inherit it.
class InstanceLock {
 public:
  // Takes DIRECTORY/huskd.lock. FAILED_PRECONDITION that names the process which has it, and `option` to choose
  // another directory by.
  static StatusOr<InstanceLock> Take(const std::string& directory, const std::string& option);

 private:
  explicit InstanceLock(UniqueFd file) : file_(std::move(file)) {}
  UniqueFd file_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_HUSKD_INSTANCE_LOCK_H_
