// A little disk space kept for the worst: to forget an image, the index must be written, also on a full disk.
#ifndef HUSK_IMAGES_DISK_RESERVE_H_
#define HUSK_IMAGES_DISK_RESERVE_H_

#include <string>
#include <utility>

namespace husk::images {

// Not thread safe.
class DiskReserve {
 public:
  // The file that occupies the space.
  explicit DiskReserve(std::string path) : path_(std::move(path)) {}

  // Takes a mebibyte unless it is taken, or the disk has not so much left.
  void Take() const;
  // Gives it back. False if there was none.
  [[nodiscard]] bool Release() const;

 private:
  const std::string path_;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_DISK_RESERVE_H_
