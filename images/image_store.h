// The directory of images: their index and their blobs, and who uses them.
//
//   images.db               the index
//   layers/<hex>            a layer blob, by diff-id
//   layers/<hex>.index      its index; only whole layers have one
//   images/<hex>.erofs      an image's metadata
//   ingest/<n>              files being written, renamed when they are whole and durable
//   reserve                 space to write the index with when the disk is full
#ifndef HUSK_IMAGES_IMAGE_STORE_H_
#define HUSK_IMAGES_IMAGE_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "images/disk_reserve.h"
#include "images/image_database.h"
#include "images/image_service.h"

namespace husk::images {

// Thread safe.
class ImageStore : public std::enable_shared_from_this<ImageStore> {
 public:
  // Files that are not deleted while this exists. When the last pin of a file goes and no image refers to it, it is
  // deleted. Names files that need not exist yet.
  class Pin {
   public:
    Pin(std::shared_ptr<ImageStore> store, std::set<std::string> files)
        : store_(std::move(store)), files_(std::move(files)) {}
    ~Pin() { store_->Unpin(files_); }
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;

   private:
    const std::shared_ptr<ImageStore> store_;
    const std::set<std::string> files_;
  };

  // A file below ingest/, deleted with this object unless it was committed.
  class IngestFile {
   public:
    IngestFile(std::shared_ptr<ImageStore> store, std::string path, UniqueFd fd)
        : store_(std::move(store)), path_(std::move(path)), fd_(std::move(fd)) {}
    ~IngestFile();
    IngestFile(const IngestFile&) = delete;
    IngestFile& operator=(const IngestFile&) = delete;
    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] const std::string& path() const { return path_; }
    // Makes it durable, then gives it its name.
    Status Commit(const std::string& path);

   private:
    const std::shared_ptr<ImageStore> store_;
    const std::string path_;
    UniqueFd fd_;
  };

  static StatusOr<std::shared_ptr<ImageStore>> Open(const std::string& directory);

  [[nodiscard]] std::string LayerPath(const std::string& diff_id) const;
  [[nodiscard]] std::string MetadataPath(const std::string& metadata) const;

  // By diff-ids and metadata digests.
  std::shared_ptr<Pin> PinFiles(const std::vector<std::string>& diff_ids, const std::vector<std::string>& metadata);

  StatusOr<std::unique_ptr<IngestFile>> NewIngestFile();
  // Makes a layer whole: its blob, then its index. The caller has pinned it.
  Status CommitLayer(const std::string& diff_id, IngestFile& blob, const std::string& index);
  Status CommitMetadata(const std::string& metadata, std::string_view bytes);
  // The bytes of a whole layer's index; nullopt if the layer is not there, damaged, or of another format.
  StatusOr<std::optional<std::string>> ReadLayerIndex(const std::string& diff_id);
  // Bytes that the layer's files occupy.
  StatusOr<std::uint64_t> LayerDiskUsage(const std::string& diff_id);
  // The metadata's length; nullopt if it is not there.
  std::optional<std::uint64_t> MetadataLength(const std::string& metadata);

  // All files of the record are whole and pinned by the caller.
  Status Put(const ImageRecord& record);
  StatusOr<std::optional<ImageRecord>> Find(const std::string& id_or_name);
  // Finds the image and pins its files before anyone can delete them.
  StatusOr<std::optional<std::pair<ImageRecord, std::shared_ptr<Pin>>>> FindAndPin(const std::string& id_or_name);
  StatusOr<std::vector<ImageRecord>> List();
  Status Remove(const std::string& id_or_name);
  StatusOr<FileSystemUsage> Usage() const;
  Status CollectGarbage(const Context& context);

 private:
  explicit ImageStore(std::string directory) : directory_(std::move(directory)), reserve_(directory_ + "/reserve") {}

  std::shared_ptr<Pin> PinLocked(std::set<std::string> files) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Unpin(const std::set<std::string>& files);
  // Deletes a file that nobody needs any more.
  Status DeleteIfUnused(const std::string& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetIngest(const std::string& path);

  const std::string directory_;
  Mutex mutex_;
  const DiskReserve reserve_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<ImageDatabase> database_ ABSL_GUARDED_BY(mutex_);
  // "layers/<hex>" and "images/<hex>.erofs", with how many pins they have.
  std::map<std::string, std::uint32_t> pins_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> ingesting_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t next_ingest_ ABSL_GUARDED_BY(mutex_) = 0;
};

// "layers/<hex>" of a diff-id and "images/<hex>.erofs" of a metadata digest: a file's name below the directory.
std::string LayerFile(const std::string& diff_id);
std::string MetadataFile(const std::string& metadata);

}  // namespace husk::images

#endif  // HUSK_IMAGES_IMAGE_STORE_H_
