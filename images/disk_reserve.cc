#include "images/disk_reserve.h"

#include <fcntl.h>
#include <unistd.h>

#include "agent/common/unique_fd.h"

namespace husk::images {

void DiskReserve::Take() const {
  constexpr off_t kSize = off_t{1} << 20;
  const UniqueFd file(open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) return;
  // Does nothing where the blocks are there already. A part of it is better left to others.
  if (posix_fallocate(file.get(), 0, kSize) != 0) unlink(path_.c_str());
}

bool DiskReserve::Release() const {
  return unlink(path_.c_str()) == 0;
}

}  // namespace husk::images
