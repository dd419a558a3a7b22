// One pull from beginning to end: manifest, config, layers in parallel, merged metadata, index.
#ifndef HUSK_IMAGES_IMAGE_PULLER_H_
#define HUSK_IMAGES_IMAGE_PULLER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "images/http_client.h"
#include "images/image_store.h"
#include "images/manifest.h"
#include "images/pull_reporter.h"
#include "images/reference.h"
#include "images/registry_client.h"
#include "images/registry_hosts.h"
#include "images/shared_layers.h"

namespace husk::images {

// Used once, by one thread; starts threads of its own and joins them.
class ImagePuller {
 public:
  ImagePuller(std::shared_ptr<ImageStore> store, SharedLayers& shared, const Reference& reference,
              const RegistryCredentials& credentials, std::vector<RegistryEndpoint> endpoints,
              std::uint32_t parallel_layers, PullReporter& reporter);

  // The id of the image, which is in the store then.
  StatusOr<std::string> Pull(const Context& context);

 private:
  struct Layer {
    Descriptor blob;
    std::string diff_id;
  };

  // Follows indexes down to the image's manifest. `top_digest` is what the reference itself resolved to.
  StatusOr<Manifest> ResolveManifest(const Context& context, std::string& top_digest);
  StatusOr<std::string> FetchConfig(const Context& context, const Descriptor& config);
  Status FetchLayers(const Context& context, const std::vector<Layer>& layers);
  Status FetchLayer(const Context& context, HttpClient& http, const Layer& layer);
  Status FetchLayerOnce(const Context& context, HttpClient& http, const Layer& layer);
  Status EnsureLayer(const Context& context, HttpClient& http, const Layer& layer);
  // Merges the layers unless that has been done, and fills in what the record says of files.
  Status MakeMetadata(const Context& context, ImageRecord& record);

  const std::shared_ptr<ImageStore> store_;
  SharedLayers& shared_;
  const Reference reference_;
  const std::uint32_t parallel_layers_;
  PullReporter& reporter_;
  HttpClient http_;
  RegistryClient registry_;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_IMAGE_PULLER_H_
