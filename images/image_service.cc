#include "images/image_service.h"

#include <algorithm>
#include <set>
#include <utility>

#include "images/image_puller.h"
#include "images/image_store.h"
#include "images/manifest.h"
#include "images/pull_reporter.h"
#include "images/reference.h"
#include "images/registry_hosts.h"
#include "images/shared_layers.h"
#include "images/text.h"

namespace husk::images {
namespace {

// The text under which the store knows an image: its id, or a normalised name.
StatusOr<std::string> StoreKey(const std::string& reference) {
  if (std::optional<std::string> id = ParseImageId(reference)) return *std::move(id);
  HUSK_ASSIGN_OR_RETURN(const Reference parsed, ParseReference(reference));
  return parsed.Key();
}

// Which images are pinned. Immutable.
class Pinned {
 public:
  static StatusOr<Pinned> Parse(const std::vector<std::string>& references) {
    Pinned pinned;
    for (const std::string& reference : references) {
      if (reference.ends_with('*')) {
        pinned.prefixes_.push_back(reference.substr(0, reference.size() - 1));
      } else {
        HUSK_ASSIGN_OR_RETURN_DOING(std::string key, StoreKey(reference), "pinned image");
        pinned.names_.insert(std::move(key));
      }
    }
    return pinned;
  }

  [[nodiscard]] bool Has(const ImageRecord& record) const {
    const auto matches = [this](const std::string& name) {
      const auto begins = [&name](const std::string& prefix) { return name.starts_with(prefix); };
      return names_.contains(name) || std::any_of(prefixes_.begin(), prefixes_.end(), begins);
    };
    return names_.contains(record.id) || std::any_of(record.tags.begin(), record.tags.end(), matches) ||
           std::any_of(record.digests.begin(), record.digests.end(), matches);
  }

 private:
  std::set<std::string> names_;
  std::vector<std::string> prefixes_;
};

StatusOr<Image> ImageOf(const ImageRecord& record, const Pinned& pinned) {
  HUSK_ASSIGN_OR_RETURN_DOING(ImageConfig config, ParseImageConfig(record.config), record.id);
  Image image;
  image.id = record.id;
  image.repository_tags = record.tags;
  image.repository_digests = record.digests;
  image.size_bytes = record.size_bytes;
  image.pinned = pinned.Has(record);
  HUSK_ASSIGN_OR_RETURN_DOING(image.annotations, ReadAnnotations(record.annotations), record.id);
  image.run = std::move(config.run);
  return image;
}

class Lease : public ImageLease {
 public:
  Lease(Image image, std::vector<DiskPart> disk, std::shared_ptr<ImageStore::Pin> pin)
      : image_(std::move(image)), disk_(std::move(disk)), pin_(std::move(pin)) {}
  [[nodiscard]] const Image& image() const override { return image_; }
  [[nodiscard]] const std::vector<DiskPart>& disk() const override { return disk_; }

 private:
  const Image image_;
  const std::vector<DiskPart> disk_;
  const std::shared_ptr<ImageStore::Pin> pin_;
};

class Service : public ImageService {
 public:
  Service(std::shared_ptr<ImageStore> store, const ImageServiceOptions& options, Pinned pinned)
      : store_(std::move(store)), options_(options), pinned_(std::move(pinned)) {}

  StatusOr<Image> Pull(const Context& context, const std::string& reference, const RegistryCredentials& credentials,
                       const std::function<void(const PullProgress&)>& progress) override {
    HUSK_ASSIGN_OR_RETURN(const Reference parsed, ParseReference(reference));
    const std::string doing = Concat("pull ", reference);
    PullReporter reporter(progress);
    HUSK_ASSIGN_OR_RETURN_DOING(std::vector<RegistryEndpoint> endpoints, FindEndpoints(options_.registry_hosts, parsed),
                                doing);
    ImagePuller puller(store_, shared_layers_, parsed, credentials, std::move(endpoints), options_.parallel_layers,
                       reporter);
    HUSK_ASSIGN_OR_RETURN_DOING(const std::string id, puller.Pull(context), doing);
    reporter.Flush();
    HUSK_ASSIGN_OR_RETURN_DOING(const std::optional<ImageRecord> record, store_->Find(id), doing);
    if (!record) return absl::AbortedError(Concat(doing, ": the image was removed at the same moment"));
    return ImageOf(*record, pinned_);
  }

  StatusOr<std::optional<Image>> Find(const std::string& reference) override {
    HUSK_ASSIGN_OR_RETURN(const std::string key, StoreKey(reference));
    HUSK_ASSIGN_OR_RETURN(const std::optional<ImageRecord> record, store_->Find(key));
    if (!record) return std::nullopt;
    HUSK_ASSIGN_OR_RETURN(Image image, ImageOf(*record, pinned_));
    return image;
  }

  StatusOr<std::vector<Image>> List() override {
    HUSK_ASSIGN_OR_RETURN(const std::vector<ImageRecord> records, store_->List());
    std::vector<Image> images;
    for (const ImageRecord& record : records) {
      HUSK_ASSIGN_OR_RETURN(Image image, ImageOf(record, pinned_));
      images.push_back(std::move(image));
    }
    return images;
  }

  Status Remove(const Context& context, const std::string& reference) override {
    HUSK_RETURN_IF_ERROR(context.Check());
    HUSK_ASSIGN_OR_RETURN(const std::string key, StoreKey(reference));
    return Annotate(store_->Remove(key), Concat("remove image ", reference));
  }

  StatusOr<FileSystemUsage> Usage() override { return store_->Usage(); }

  StatusOr<std::shared_ptr<ImageLease>> Acquire(const std::string& reference) override {
    HUSK_ASSIGN_OR_RETURN(const std::string key, StoreKey(reference));
    HUSK_ASSIGN_OR_RETURN(auto found, store_->FindAndPin(key));
    if (!found) return absl::NotFoundError(Concat("image ", reference, " is not there: pull it first"));
    auto& [record, pin] = *found;
    HUSK_ASSIGN_OR_RETURN(Image image, ImageOf(record, pinned_));
    std::vector<DiskPart> disk = {{store_->MetadataPath(record.metadata), record.metadata_length}};
    std::set<std::string> seen;
    for (const LayerRecord& layer : record.layers) {
      // The order is that of the metadata's block addresses: each layer where it first comes.
      if (!seen.insert(layer.diff_id).second || layer.length == 0) continue;
      disk.push_back({store_->LayerPath(layer.diff_id), layer.length});
    }
    return std::make_shared<Lease>(std::move(image), std::move(disk), std::move(pin));
  }

  Status CollectGarbage(const Context& context) override { return store_->CollectGarbage(context); }

 private:
  const std::shared_ptr<ImageStore> store_;
  const ImageServiceOptions options_;
  const Pinned pinned_;
  SharedLayers shared_layers_;
};

}  // namespace

StatusOr<std::unique_ptr<ImageService>> NewImageService(const ImageServiceOptions& options) {
  HUSK_ASSIGN_OR_RETURN(Pinned pinned, Pinned::Parse(options.pinned));
  HUSK_ASSIGN_OR_RETURN_DOING(std::shared_ptr<ImageStore> store, ImageStore::Open(options.directory),
                              Concat("open the images in ", options.directory));
  return std::make_unique<Service>(std::move(store), options, std::move(pinned));
}

}  // namespace husk::images
