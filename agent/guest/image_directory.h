// A directory inside a mounted image, by a name that comes from a pod's author.
#ifndef HUSK_AGENT_GUEST_IMAGE_DIRECTORY_H_
#define HUSK_AGENT_GUEST_IMAGE_DIRECTORY_H_

#include <string>

#include "agent/common/status.h"

namespace husk::agent {

// The directory's path below `root`, where the image is mounted; of all of the image for an empty name. Symlinks mean
// what they mean in the image: none leads out of it. Errors begin with "ImageVolumeMountFailed: ": INVALID_ARGUMENT for
// ".." and absolute names, FAILED_PRECONDITION for what the image does not have or is no directory.
StatusOr<std::string> FindImageDirectory(const std::string& root, const std::string& sub_path);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_IMAGE_DIRECTORY_H_
