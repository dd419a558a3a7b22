// The JSON documents of an image: index, manifest, config, in OCI's form and in Docker's (schema 2).
#ifndef HUSK_IMAGES_MANIFEST_H_
#define HUSK_IMAGES_MANIFEST_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "images/image_service.h"

namespace husk::images {

struct Descriptor {
  std::string media_type;
  std::string digest;  // IsDigest() holds
  std::uint64_t size = 0;
};

struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;
  std::map<std::string, std::string> annotations;  // 256 KiB at most, as Kubernetes allows its own objects
};

struct ImageConfig {
  std::vector<std::string> diff_ids;  // IsDigest() holds
  ImageRunConfig run;
};

// Media types to accept, as an Accept header's value.
std::string_view AcceptedManifestTypes();

// True if the document is an index (a list of manifests per platform). `media_type` is what the registry or an index
// calls it; INVALID_ARGUMENT if the document says otherwise of itself, or is neither index nor manifest.
StatusOr<bool> IsIndex(std::string_view json, std::string_view media_type);

// The manifest for linux/amd64 out of an index. NOT_FOUND that names the platforms there are.
StatusOr<Descriptor> ChooseFromIndex(std::string_view json);

StatusOr<Manifest> ParseManifest(std::string_view json);

// The annotations of a manifest as the index keeps them, and back.
std::string WriteAnnotations(const std::map<std::string, std::string>& annotations);
StatusOr<std::map<std::string, std::string>> ReadAnnotations(const std::string& json);

// FAILED_PRECONDITION if the image is for another platform.
StatusOr<ImageConfig> ParseImageConfig(std::string_view json);

// INVALID_ARGUMENT if a config's User is longer than any user could be: for new images, before they are listed.
Status CheckUser(std::string_view user);

}  // namespace husk::images

#endif  // HUSK_IMAGES_MANIFEST_H_
