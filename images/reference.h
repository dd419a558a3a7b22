// Names of images, as people write them and as Docker normalises them.
#ifndef HUSK_IMAGES_REFERENCE_H_
#define HUSK_IMAGES_REFERENCE_H_

#include <optional>
#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::images {

// "[host/]repository[:tag][@digest]" with the defaults filled in.
struct Reference {
  std::string host;        // with its port, as in "127.0.0.1:5000"
  std::string repository;  // "library/busybox"
  std::string tag;         // "latest" if neither tag nor digest was given; may be set beside a digest
  std::string digest;      // empty, or "sha256:<hex>"; decides if there is a tag too

  // "host/repository"
  [[nodiscard]] std::string Name() const { return host + "/" + repository; }
  // The name under which an image that this reference resolved to is found again: "host/repository:tag", or
  // "host/repository@digest".
  [[nodiscard]] std::string Key() const { return digest.empty() ? Name() + ":" + tag : Name() + "@" + digest; }
};

// INVALID_ARGUMENT that names the text and the fault.
StatusOr<Reference> ParseReference(std::string_view text);

// "sha256:<hex>" for an image id, written with or without its algorithm; nullopt if the text is none.
std::optional<std::string> ParseImageId(std::string_view text);

// The host and port to which requests for this host's repositories go.
std::string ApiHost(std::string_view host);

// True if the host (with or without a port) is "localhost" or a literal loopback address: traffic to it never leaves
// this machine.
bool IsLoopbackHost(std::string_view host);

}  // namespace husk::images

#endif  // HUSK_IMAGES_REFERENCE_H_
