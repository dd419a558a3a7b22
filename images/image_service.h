// Images: pulled from registries into layer blobs, shown to a VM as one read-only disk each.
#ifndef HUSK_IMAGES_IMAGE_SERVICE_H_
#define HUSK_IMAGES_IMAGE_SERVICE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"

namespace husk::images {

// What an image's config says about how to run it. Bytes as the image has them; nothing is checked.
struct ImageRunConfig {
  std::string user;
  std::vector<std::string> environment;  // NAME=value
  std::vector<std::string> entrypoint;
  std::vector<std::string> command;
  std::string working_directory;
  std::string stop_signal;
  std::vector<std::string> volumes;
  std::map<std::string, std::string> labels;
};

struct Image {
  // "sha256:<hex>" of the image's config: the CRI's Image.id.
  std::string id;
  std::vector<std::string> repository_tags;        // "host/repository:tag"
  std::vector<std::string> repository_digests;     // "host/repository@sha256:..."
  std::uint64_t size_bytes = 0;                    // on disk, shared layers counted in full; never 0
  bool pinned = false;                             // by the configuration
  std::map<std::string, std::string> annotations;  // of its manifest
  ImageRunConfig run;
};

struct DiskPart {
  std::string path;
  std::uint64_t length = 0;  // bytes, a multiple of 4096
};

// An image in use: it is not deleted while a lease on it exists, whatever RemoveImage says.
class ImageLease {
 public:
  virtual ~ImageLease() = default;
  [[nodiscard]] virtual const Image& image() const = 0;
  // The disk's parts, one after the other: the EROFS metadata, then the layers. Never to be written.
  [[nodiscard]] virtual const std::vector<DiskPart>& disk() const = 0;
};

struct RegistryCredentials {
  std::string username;
  std::string password;
  std::string auth;  // base64 of user:password
  std::string server_address;
  std::string identity_token;
  std::string registry_token;
};

// One pull's progress. Called from the pull's threads, a few times a second at most.
struct PullProgress {
  std::uint64_t bytes_done = 0;   // compressed, of layers fetched by this pull
  std::uint64_t bytes_total = 0;  // 0: not known yet
  std::uint32_t layers_done = 0;
  std::uint32_t layers_total = 0;
  std::string waiting_for;  // what it is doing, such as "GET http://127.0.0.1:5000/v2/app/manifests/1"
};

struct FileSystemUsage {
  std::string directory;  // exists
  std::uint64_t used_bytes = 0;
  std::uint64_t inodes_used = 0;
};

// Thread safe and blocking. References are "[host/]repository[:tag][@digest]" or an image id; a bad one is
// INVALID_ARGUMENT that names it.
class ImageService {
 public:
  virtual ~ImageService() = default;

  // OK also if everything is there already. NOT_FOUND, UNAUTHENTICATED, UNAVAILABLE (the registry), DATA_LOSS (a
  // digest does not match), RESOURCE_EXHAUSTED (disk full), FAILED_PRECONDITION (TLS, or a wrong hosts.toml). Nothing
  // of a failed pull is visible.
  virtual StatusOr<Image> Pull(const Context& context, const std::string& reference,
                               const RegistryCredentials& credentials,
                               const std::function<void(const PullProgress&)>& progress) = 0;
  // nullopt if there is none.
  virtual StatusOr<std::optional<Image>> Find(const std::string& reference) = 0;
  virtual StatusOr<std::vector<Image>> List() = 0;
  // By any of its references or its id: all its tags and digests go. OK if there is none. Files go with the last lease.
  virtual Status Remove(const Context& context, const std::string& reference) = 0;
  virtual StatusOr<FileSystemUsage> Usage() = 0;

  // NOT_FOUND if the image is not there.
  virtual StatusOr<std::shared_ptr<ImageLease>> Acquire(const std::string& reference) = 0;
  // Deletes files that belong to no image and no lease: what a crash left. Called once at start, after leases of
  // adopted containers were acquired.
  virtual Status CollectGarbage(const Context& context) = 0;
};

struct ImageServiceOptions {
  std::string directory;  // created if missing; index and blobs
  std::uint32_t parallel_layers = 3;
  // References of images that the kubelet shall spare; one that ends with "*" means all normalised names that begin so.
  std::vector<std::string> pinned;
  // Settings of registry hosts, in containerd's layout <host>/hosts.toml; read at each pull. Empty: none.
  std::string registry_hosts;
};

// INVALID_ARGUMENT if a pinned reference is none.
StatusOr<std::unique_ptr<ImageService>> NewImageService(const ImageServiceOptions& options);

}  // namespace husk::images

#endif  // HUSK_IMAGES_IMAGE_SERVICE_H_
