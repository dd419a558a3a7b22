// Files that an administrator names.
#ifndef HUSK_IMAGES_TEXT_FILE_H_
#define HUSK_IMAGES_TEXT_FILE_H_

#include <cstddef>
#include <string>

#include "agent/common/status.h"

namespace husk::images {

// What is in the file. FAILED_PRECONDITION that names it if it cannot be read, as a directory cannot, or has more than
// `most_mib` MiB; no more than that is read.
StatusOr<std::string> ReadTextFile(const std::string& path, std::size_t most_mib);

}  // namespace husk::images

#endif  // HUSK_IMAGES_TEXT_FILE_H_
