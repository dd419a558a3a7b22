#include "images/image_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "images/digest.h"
#include "images/layer_index.h"
#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::string_view kLayers = "layers";
constexpr std::string_view kImages = "images";
constexpr std::string_view kIngest = "ingest";
constexpr std::string_view kIndexSuffix = ".index";
constexpr std::string_view kMetadataSuffix = ".erofs";
constexpr std::uint64_t kStatBlock = 512;

Status WriteAll(int fd, std::string_view bytes, const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, Concat("write ", what));
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return absl::OkStatus();
}

StatusOr<std::string> ReadFile(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid()) return ErrnoStatus(errno, Concat("open ", path));
  struct stat info{};
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, Concat("stat ", path));
  std::string bytes(static_cast<std::size_t>(info.st_size), '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = read(fd.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, Concat("read ", path));
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  bytes.resize(done);
  return bytes;
}

// A rename lasts only when its directory has been synced.
Status SyncDirectory(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (!fd.valid()) return ErrnoStatus(errno, Concat("open ", path));
  return fsync(fd.get()) == 0 ? absl::OkStatus() : ErrnoStatus(errno, Concat("sync ", path));
}

Status DeleteFile(const std::string& path) {
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return ErrnoStatus(errno, Concat("delete ", path));
}

StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) return ErrnoStatus(error.value(), Concat("list ", path));
  return names;
}

std::set<std::string> FilesOf(const ImageRecord& record) {
  std::set<std::string> files = {MetadataFile(record.metadata)};
  for (const LayerRecord& layer : record.layers) files.insert(LayerFile(layer.diff_id));
  return files;
}

}  // namespace

std::string LayerFile(const std::string& diff_id) {
  return Concat(kLayers, "/", DigestHex(diff_id));
}

std::string MetadataFile(const std::string& metadata) {
  return Concat(kImages, "/", DigestHex(metadata), kMetadataSuffix);
}

ImageStore::IngestFile::~IngestFile() {
  unlink(path_.c_str());
  store_->ForgetIngest(path_);
}

Status ImageStore::IngestFile::Commit(const std::string& path) {
  if (fsync(fd_.get()) != 0) return ErrnoStatus(errno, Concat("sync ", path_));
  if (rename(path_.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, Concat("rename ", path_, " to ", path));
  return SyncDirectory(std::filesystem::path(path).parent_path().string());
}

StatusOr<std::shared_ptr<ImageStore>> ImageStore::Open(const std::string& directory) {
  std::error_code error;
  for (const std::string_view name : {kLayers, kImages, kIngest}) {
    const std::string path = Concat(directory, "/", name);
    std::filesystem::create_directories(path, error);
    if (error) return ErrnoStatus(error.value(), Concat("create ", path));
    // Images may hold secrets; only Husk reads them, and QEMU by descriptors.
    if (chmod(path.c_str(), 0700) != 0) return ErrnoStatus(errno, Concat("protect ", path));
  }
  std::shared_ptr<ImageStore> store(new ImageStore(directory));
  const MutexLock lock(store->mutex_);
  StatusOr<std::unique_ptr<ImageDatabase>> database = ImageDatabase::Open(directory + "/images.db");
  if (absl::IsResourceExhausted(database.status()) && store->reserve_.Release()) {
    database = ImageDatabase::Open(directory + "/images.db");
  }
  HUSK_ASSIGN_OR_RETURN(store->database_, std::move(database));
  store->reserve_.Take();
  return store;
}

std::string ImageStore::LayerPath(const std::string& diff_id) const {
  return directory_ + "/" + LayerFile(diff_id);
}

std::string ImageStore::MetadataPath(const std::string& metadata) const {
  return directory_ + "/" + MetadataFile(metadata);
}

std::shared_ptr<ImageStore::Pin> ImageStore::PinFiles(const std::vector<std::string>& diff_ids,
                                                      const std::vector<std::string>& metadata) {
  std::set<std::string> files;
  for (const std::string& diff_id : diff_ids) files.insert(LayerFile(diff_id));
  for (const std::string& digest : metadata) files.insert(MetadataFile(digest));
  const MutexLock lock(mutex_);
  return PinLocked(std::move(files));
}

std::shared_ptr<ImageStore::Pin> ImageStore::PinLocked(std::set<std::string> files) {
  for (const std::string& file : files) ++pins_[file];
  return std::make_shared<Pin>(shared_from_this(), std::move(files));
}

void ImageStore::Unpin(const std::set<std::string>& files) {
  const MutexLock lock(mutex_);
  for (const std::string& file : files) {
    const auto pin = pins_.find(file);
    if (--pin->second > 0) continue;
    pins_.erase(pin);
    // What cannot be deleted now is deleted by CollectGarbage.
    static_cast<void>(DeleteIfUnused(file));
  }
  reserve_.Take();
}

Status ImageStore::DeleteIfUnused(const std::string& file) {
  if (pins_.contains(file)) return absl::OkStatus();
  const bool is_layer = file.starts_with(kLayers);
  std::string_view name = std::string_view(file).substr(file.find('/') + 1);
  name = name.substr(0, name.find('.'));
  const std::string digest = Concat("sha256:", name);
  HUSK_ASSIGN_OR_RETURN(const bool used, is_layer ? database_->UsesLayer(digest) : database_->UsesMetadata(digest));
  if (used) return absl::OkStatus();
  const std::string path = directory_ + "/" + file;
  // The index first: a layer that has one is whole.
  if (is_layer) HUSK_RETURN_IF_ERROR(DeleteFile(Concat(path, kIndexSuffix)));
  return DeleteFile(path);
}

StatusOr<std::unique_ptr<ImageStore::IngestFile>> ImageStore::NewIngestFile() {
  std::string path;
  {
    const MutexLock lock(mutex_);
    path = Concat(directory_, "/", kIngest, "/", getpid(), "-", next_ingest_++);
    ingesting_.insert(path);
  }
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) {
    const int error = errno;
    ForgetIngest(path);
    return ErrnoStatus(error, Concat("create ", path));
  }
  return std::make_unique<IngestFile>(shared_from_this(), path, std::move(fd));
}

void ImageStore::ForgetIngest(const std::string& path) {
  const MutexLock lock(mutex_);
  ingesting_.erase(path);
}

Status ImageStore::CommitLayer(const std::string& diff_id, IngestFile& blob, const std::string& index) {
  HUSK_ASSIGN_OR_RETURN(const std::unique_ptr<IngestFile> index_file, NewIngestFile());
  HUSK_RETURN_IF_ERROR(WriteAll(index_file->fd(), index, index_file->path()));
  HUSK_RETURN_IF_ERROR(blob.Commit(LayerPath(diff_id)));
  return index_file->Commit(Concat(LayerPath(diff_id), kIndexSuffix));
}

Status ImageStore::CommitMetadata(const std::string& metadata, std::string_view bytes) {
  HUSK_ASSIGN_OR_RETURN(const std::unique_ptr<IngestFile> file, NewIngestFile());
  HUSK_RETURN_IF_ERROR(WriteAll(file->fd(), bytes, file->path()));
  return file->Commit(MetadataPath(metadata));
}

StatusOr<std::optional<std::string>> ImageStore::ReadLayerIndex(const std::string& diff_id) {
  StatusOr<std::string> bytes = ReadFile(Concat(LayerPath(diff_id), kIndexSuffix));
  if (absl::IsNotFound(bytes.status())) return std::nullopt;
  HUSK_RETURN_IF_ERROR(bytes.status());
  const StatusOr<LayerIndexReader> index = LayerIndexReader::Parse(*bytes);
  if (!index.ok()) return std::nullopt;
  struct stat info{};
  if (stat(LayerPath(diff_id).c_str(), &info) != 0) return std::nullopt;
  if (static_cast<std::uint64_t>(info.st_size) != index->blob_length()) return std::nullopt;
  return *std::move(bytes);
}

StatusOr<std::uint64_t> ImageStore::LayerDiskUsage(const std::string& diff_id) {
  std::uint64_t total = 0;
  for (const std::string& path : {LayerPath(diff_id), Concat(LayerPath(diff_id), kIndexSuffix)}) {
    struct stat info{};
    if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, Concat("stat ", path));
    // A file system may not have allocated blocks yet; a sparse file never has as many as its length says.
    total += std::max(static_cast<std::uint64_t>(info.st_blocks) * kStatBlock, std::uint64_t{1});
  }
  return total;
}

std::optional<std::uint64_t> ImageStore::MetadataLength(const std::string& metadata) {
  struct stat info{};
  if (stat(MetadataPath(metadata).c_str(), &info) != 0) return std::nullopt;
  return static_cast<std::uint64_t>(info.st_size);
}

Status ImageStore::Put(const ImageRecord& record) {
  const MutexLock lock(mutex_);
  return database_->Put(record);
}

StatusOr<std::optional<ImageRecord>> ImageStore::Find(const std::string& id_or_name) {
  const MutexLock lock(mutex_);
  return database_->Find(id_or_name);
}

StatusOr<std::optional<std::pair<ImageRecord, std::shared_ptr<ImageStore::Pin>>>> ImageStore::FindAndPin(
    const std::string& id_or_name) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(std::optional<ImageRecord> record, database_->Find(id_or_name));
  if (!record) return std::nullopt;
  std::shared_ptr<Pin> pin = PinLocked(FilesOf(*record));
  return std::make_pair(*std::move(record), std::move(pin));
}

StatusOr<std::vector<ImageRecord>> ImageStore::List() {
  const MutexLock lock(mutex_);
  return database_->List();
}

Status ImageStore::Remove(const std::string& id_or_name) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(const std::optional<ImageRecord> record, database_->Find(id_or_name));
  if (!record) return absl::OkStatus();
  Status removed = database_->Remove(record->id);
  if (absl::IsResourceExhausted(removed) && reserve_.Release()) removed = database_->Remove(record->id);
  HUSK_RETURN_IF_ERROR(removed);
  for (const std::string& file : FilesOf(*record)) HUSK_RETURN_IF_ERROR(DeleteIfUnused(file));
  reserve_.Take();
  return absl::OkStatus();
}

StatusOr<FileSystemUsage> ImageStore::Usage() const {
  FileSystemUsage usage{.directory = directory_};
  std::error_code error;
  std::filesystem::recursive_directory_iterator entry(directory_, error);
  for (const std::filesystem::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    struct stat info{};
    // Files come and go meanwhile.
    if (lstat(entry->path().c_str(), &info) != 0) continue;
    usage.used_bytes += static_cast<std::uint64_t>(info.st_blocks) * kStatBlock;
    ++usage.inodes_used;
  }
  if (error) return ErrnoStatus(error.value(), Concat("list ", directory_));
  return usage;
}

Status ImageStore::CollectGarbage(const Context& context) {
  for (const std::string_view folder : {kLayers, kImages, kIngest}) {
    HUSK_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(Concat(directory_, "/", folder)));
    for (const std::string& name : names) {
      HUSK_RETURN_IF_ERROR(context.Check());
      const MutexLock lock(mutex_);
      const std::string path = Concat(directory_, "/", folder, "/", name);
      if (folder == kIngest) {
        if (!ingesting_.contains(path)) HUSK_RETURN_IF_ERROR(DeleteFile(path));
        continue;
      }
      std::string_view digits = name;
      const std::string_view suffix = folder == kLayers ? kIndexSuffix : kMetadataSuffix;
      if (digits.ends_with(suffix)) digits.remove_suffix(suffix.size());
      const std::string digest = Concat("sha256:", digits);
      const std::string file = folder == kLayers ? LayerFile(digest) : MetadataFile(digest);
      const bool ours = IsDigest(digest) && (folder == kLayers || name.ends_with(kMetadataSuffix));
      HUSK_RETURN_IF_ERROR(ours ? DeleteIfUnused(file) : DeleteFile(path));
    }
  }
  return absl::OkStatus();
}

}  // namespace husk::images
