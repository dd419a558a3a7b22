// The index of images, in SQLite.
#ifndef HUSK_IMAGES_IMAGE_DATABASE_H_
#define HUSK_IMAGES_IMAGE_DATABASE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/common/status.h"

struct sqlite3;

namespace husk::images {

struct LayerRecord {
  std::string diff_id;
  std::uint64_t length = 0;  // of its blob, bytes
};

struct ImageRecord {
  std::string id;
  std::string config;    // the JSON document that the id is the digest of
  std::string metadata;  // names the EROFS metadata: a digest
  std::uint64_t metadata_length = 0;
  std::uint64_t size_bytes = 0;
  std::string annotations;           // of its manifest: a JSON object of strings; empty: none
  std::vector<LayerRecord> layers;   // in order; a layer may come twice
  std::vector<std::string> tags;     // "host/repository:tag", sorted
  std::vector<std::string> digests;  // "host/repository@digest", sorted
};

// Each call is one transaction. Not thread safe.
class ImageDatabase {
 public:
  // Creates the file or brings its schema up to date. FAILED_PRECONDITION if a newer Husk wrote it.
  static StatusOr<std::unique_ptr<ImageDatabase>> Open(const std::string& path);
  ~ImageDatabase();
  ImageDatabase(const ImageDatabase&) = delete;
  ImageDatabase& operator=(const ImageDatabase&) = delete;

  // Adds the image or replaces the one of that id, and adds its tags and digests to it; names that belonged to another
  // image are taken from it. Durable when it returns.
  Status Put(const ImageRecord& record);
  // By id, or by a name as it stands in tags and digests.
  StatusOr<std::optional<ImageRecord>> Find(const std::string& id_or_name);
  StatusOr<std::vector<ImageRecord>> List();
  // The image, its names and its unshared layers. OK if there is none.
  Status Remove(const std::string& id);

  StatusOr<bool> UsesLayer(const std::string& diff_id);
  StatusOr<bool> UsesMetadata(const std::string& metadata);

 private:
  explicit ImageDatabase(sqlite3* handle) : handle_(handle) {}
  Status Execute(const char* sql);
  Status Migrate();
  Status PutRows(const ImageRecord& record);
  Status ReadDetails(ImageRecord& record);
  StatusOr<bool> Exists(const char* sql, const std::string& key);

  sqlite3* const handle_;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_IMAGE_DATABASE_H_
