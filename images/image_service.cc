#include "images/image_service.h"

#include <set>
#include <utility>

#include "images/image_puller.h"
#include "images/image_store.h"
#include "images/manifest.h"
#include "images/pull_reporter.h"
#include "images/reference.h"
#include "images/shared_layers.h"
#include "images/text.h"

namespace husk::images {
namespace {

StatusOr<Image> ImageOf(const ImageRecord& record) {
  HUSK_ASSIGN_OR_RETURN_DOING(ImageConfig config, ParseImageConfig(record.config), record.id);
  Image image;
  image.id = record.id;
  image.repository_tags = record.tags;
  image.repository_digests = record.digests;
  image.size_bytes = record.size_bytes;
  image.run = std::move(config.run);
  return image;
}

// The text under which the store knows an image: its id, or a normalised name.
StatusOr<std::string> StoreKey(const std::string& reference) {
  if (std::optional<std::string> id = ParseImageId(reference)) return *std::move(id);
  HUSK_ASSIGN_OR_RETURN(const Reference parsed, ParseReference(reference));
  return parsed.Key();
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
  Service(std::shared_ptr<ImageStore> store, std::uint32_t parallel_layers)
      : store_(std::move(store)), parallel_layers_(parallel_layers) {}

  StatusOr<Image> Pull(const Context& context, const std::string& reference, const RegistryCredentials& credentials,
                       const std::function<void(const PullProgress&)>& progress) override {
    HUSK_ASSIGN_OR_RETURN(const Reference parsed, ParseReference(reference));
    const std::string doing = Concat("pull ", reference);
    PullReporter reporter(progress);
    ImagePuller puller(store_, shared_layers_, parsed, credentials, parallel_layers_, reporter);
    HUSK_ASSIGN_OR_RETURN_DOING(const std::string id, puller.Pull(context), doing);
    reporter.Flush();
    HUSK_ASSIGN_OR_RETURN_DOING(const std::optional<ImageRecord> record, store_->Find(id), doing);
    if (!record) return absl::AbortedError(Concat(doing, ": the image was removed at the same moment"));
    return ImageOf(*record);
  }

  StatusOr<std::optional<Image>> Find(const std::string& reference) override {
    HUSK_ASSIGN_OR_RETURN(const std::string key, StoreKey(reference));
    HUSK_ASSIGN_OR_RETURN(const std::optional<ImageRecord> record, store_->Find(key));
    if (!record) return std::nullopt;
    HUSK_ASSIGN_OR_RETURN(Image image, ImageOf(*record));
    return image;
  }

  StatusOr<std::vector<Image>> List() override {
    HUSK_ASSIGN_OR_RETURN(const std::vector<ImageRecord> records, store_->List());
    std::vector<Image> images;
    for (const ImageRecord& record : records) {
      HUSK_ASSIGN_OR_RETURN(Image image, ImageOf(record));
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
    HUSK_ASSIGN_OR_RETURN(Image image, ImageOf(record));
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
  const std::uint32_t parallel_layers_;
  SharedLayers shared_layers_;
};

}  // namespace

StatusOr<std::unique_ptr<ImageService>> NewImageService(const ImageServiceOptions& options) {
  HUSK_ASSIGN_OR_RETURN_DOING(std::shared_ptr<ImageStore> store, ImageStore::Open(options.directory),
                              Concat("open the images in ", options.directory));
  return std::make_unique<Service>(std::move(store), options.parallel_layers);
}

}  // namespace husk::images
