#include "images/image_database.h"

#include <sqlite3.h>

#include <array>
#include <cerrno>
#include <utility>

#include "images/text.h"

namespace husk::images {
namespace {

// Step n brings a database of user_version n to n + 1.
constexpr std::array<const char*, 2> kMigrations = {
    R"(
  CREATE TABLE images(
    id TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    metadata TEXT NOT NULL,
    metadata_length INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL) STRICT;
  CREATE INDEX images_by_metadata ON images(metadata);
  CREATE TABLE image_layers(
    image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY(image_id, position)) STRICT;
  CREATE INDEX image_layers_by_diff_id ON image_layers(diff_id);
  CREATE TABLE names(
    name TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    is_digest INTEGER NOT NULL) STRICT;
  CREATE INDEX names_by_image ON names(image_id);
)",
    R"(
  ALTER TABLE images ADD COLUMN annotations TEXT NOT NULL DEFAULT '';
)"};

Status DatabaseError(sqlite3* handle, std::string_view doing) {
  const int code = sqlite3_errcode(handle);
  const char* const path = sqlite3_db_filename(handle, "main");
  const std::string message =
      Concat("image index ", path == nullptr ? "" : path, ": ", doing, ": ", sqlite3_errmsg(handle));
  // Where SQLite maps a file, a full disk is an error like others.
  const int cause = code == SQLITE_IOERR ? sqlite3_system_errno(handle) : 0;
  const bool full = code == SQLITE_FULL || cause == ENOSPC || cause == EDQUOT;
  return full ? absl::ResourceExhaustedError(message) : absl::InternalError(message);
}

class Statement {
 public:
  Statement(sqlite3* handle, const char* sql) : handle_(handle) {
    if (sqlite3_prepare_v2(handle, sql, -1, &statement_, nullptr) != SQLITE_OK) statement_ = nullptr;
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& Bind(const std::string& text) {
    if (statement_ != nullptr) {
      sqlite3_bind_text(statement_, ++bound_, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);  // NOLINT
    }
    return *this;
  }
  Statement& BindBlob(const std::string& bytes) {
    if (statement_ != nullptr) {
      sqlite3_bind_blob(statement_, ++bound_, bytes.data(), static_cast<int>(bytes.size()),
                        SQLITE_TRANSIENT);  // NOLINT
    }
    return *this;
  }
  Statement& Bind(std::uint64_t number) {
    if (statement_ != nullptr) sqlite3_bind_int64(statement_, ++bound_, static_cast<sqlite3_int64>(number));
    return *this;
  }
  // True while there are rows.
  StatusOr<bool> Step() {
    const int code = statement_ == nullptr ? SQLITE_ERROR : sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return DatabaseError(handle_, statement_ == nullptr ? "prepare" : sqlite3_sql(statement_));
  }
  Status Run() { return Step().status(); }
  [[nodiscard]] std::string Text(int column) const {
    const void* const bytes = sqlite3_column_blob(statement_, column);
    const int length = sqlite3_column_bytes(statement_, column);
    return bytes == nullptr ? "" : std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(length));
  }
  [[nodiscard]] std::uint64_t Number(int column) const {
    return static_cast<std::uint64_t>(sqlite3_column_int64(statement_, column));
  }

 private:
  sqlite3* const handle_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

// The columns id, config, metadata, metadata_length, size_bytes, annotations.
ImageRecord RecordOf(const Statement& row) {
  return {.id = row.Text(0),
          .config = row.Text(1),
          .metadata = row.Text(2),
          .metadata_length = row.Number(3),
          .size_bytes = row.Number(4),
          .annotations = row.Text(5),
          .layers = {},
          .tags = {},
          .digests = {}};
}

}  // namespace

StatusOr<std::unique_ptr<ImageDatabase>> ImageDatabase::Open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  std::unique_ptr<ImageDatabase> database(new ImageDatabase(handle));
  if (code != SQLITE_OK) return absl::InternalError(Concat("open ", path, ": ", sqlite3_errstr(code)));
  constexpr int kBusyMilliseconds = 5000;
  sqlite3_busy_timeout(handle, kBusyMilliseconds);
  for (const char* pragma : {"PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON"}) {
    HUSK_RETURN_IF_ERROR(database->Execute(pragma));
  }
  HUSK_RETURN_IF_ERROR(database->Migrate());
  return database;
}

ImageDatabase::~ImageDatabase() {
  sqlite3_close_v2(handle_);
}

Status ImageDatabase::Execute(const char* sql) {
  if (sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return absl::OkStatus();
  return DatabaseError(handle_, sql);
}

Status ImageDatabase::Migrate() {
  Statement query(handle_, "PRAGMA user_version");
  HUSK_RETURN_IF_ERROR(query.Step().status());
  const std::uint64_t version = query.Number(0);
  HUSK_RETURN_IF_ERROR(query.Step().status());
  if (version > kMigrations.size()) {
    return absl::FailedPreconditionError(Concat("the image index ", sqlite3_db_filename(handle_, "main"),
                                                " has version ", version, ", this Husk knows ", kMigrations.size(),
                                                ": it was written by a newer one"));
  }
  for (std::uint64_t step = version; step < kMigrations.size(); ++step) {
    const std::string sql =
        Concat("BEGIN IMMEDIATE;", kMigrations[step], "PRAGMA user_version = ", step + 1, ";COMMIT;");
    if (const Status status = Execute(sql.c_str()); !status.ok()) {
      sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
      return status;
    }
  }
  return absl::OkStatus();
}

Status ImageDatabase::Put(const ImageRecord& record) {
  HUSK_RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
  Status status = PutRows(record);
  if (status.ok()) status = Execute("COMMIT");
  if (!status.ok()) sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
  return status;
}

Status ImageDatabase::PutRows(const ImageRecord& record) {
  HUSK_RETURN_IF_ERROR(Statement(handle_,
                                 "INSERT INTO images(id, config, metadata, metadata_length, size_bytes, annotations) "
                                 "VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET config = excluded.config, "
                                 "metadata = excluded.metadata, metadata_length = excluded.metadata_length, "
                                 "size_bytes = excluded.size_bytes, annotations = excluded.annotations")
                           .Bind(record.id)
                           .BindBlob(record.config)
                           .Bind(record.metadata)
                           .Bind(record.metadata_length)
                           .Bind(record.size_bytes)
                           .Bind(record.annotations)
                           .Run());
  HUSK_RETURN_IF_ERROR(Statement(handle_, "DELETE FROM image_layers WHERE image_id = ?").Bind(record.id).Run());
  for (std::size_t i = 0; i < record.layers.size(); ++i) {
    HUSK_RETURN_IF_ERROR(
        Statement(handle_, "INSERT INTO image_layers(image_id, position, diff_id, length) VALUES(?, ?, ?, ?)")
            .Bind(record.id)
            .Bind(std::uint64_t{i})
            .Bind(record.layers[i].diff_id)
            .Bind(record.layers[i].length)
            .Run());
  }
  for (const bool is_digest : {false, true}) {
    for (const std::string& name : is_digest ? record.digests : record.tags) {
      HUSK_RETURN_IF_ERROR(Statement(handle_, "INSERT OR REPLACE INTO names(name, image_id, is_digest) VALUES(?, ?, ?)")
                               .Bind(name)
                               .Bind(record.id)
                               .Bind(std::uint64_t{is_digest ? 1U : 0U})
                               .Run());
    }
  }
  return absl::OkStatus();
}

StatusOr<std::optional<ImageRecord>> ImageDatabase::Find(const std::string& id_or_name) {
  Statement query(handle_,
                  "SELECT id, config, metadata, metadata_length, size_bytes, annotations FROM images "
                  "WHERE id = ?1 OR id = (SELECT image_id FROM names WHERE name = ?1)");
  HUSK_ASSIGN_OR_RETURN(const bool found, query.Bind(id_or_name).Step());
  if (!found) return std::nullopt;
  ImageRecord record = RecordOf(query);
  HUSK_RETURN_IF_ERROR(ReadDetails(record));
  return record;
}

Status ImageDatabase::ReadDetails(ImageRecord& record) {
  Statement layers(handle_, "SELECT diff_id, length FROM image_layers WHERE image_id = ? ORDER BY position");
  layers.Bind(record.id);
  while (true) {
    HUSK_ASSIGN_OR_RETURN(const bool more, layers.Step());
    if (!more) break;
    record.layers.push_back({layers.Text(0), layers.Number(1)});
  }
  Statement names(handle_, "SELECT name, is_digest FROM names WHERE image_id = ? ORDER BY name");
  names.Bind(record.id);
  while (true) {
    HUSK_ASSIGN_OR_RETURN(const bool more, names.Step());
    if (!more) return absl::OkStatus();
    (names.Number(1) != 0 ? record.digests : record.tags).push_back(names.Text(0));
  }
}

StatusOr<std::vector<ImageRecord>> ImageDatabase::List() {
  Statement query(handle_,
                  "SELECT id, config, metadata, metadata_length, size_bytes, annotations FROM images ORDER BY id");
  std::vector<ImageRecord> records;
  while (true) {
    HUSK_ASSIGN_OR_RETURN(const bool more, query.Step());
    if (!more) return records;
    records.push_back(RecordOf(query));
    HUSK_RETURN_IF_ERROR(ReadDetails(records.back()));
  }
}

Status ImageDatabase::Remove(const std::string& id) {
  return Statement(handle_, "DELETE FROM images WHERE id = ?").Bind(id).Run();
}

StatusOr<bool> ImageDatabase::Exists(const char* sql, const std::string& key) {
  return Statement(handle_, sql).Bind(key).Step();
}

StatusOr<bool> ImageDatabase::UsesLayer(const std::string& diff_id) {
  return Exists("SELECT 1 FROM image_layers WHERE diff_id = ? LIMIT 1", diff_id);
}

StatusOr<bool> ImageDatabase::UsesMetadata(const std::string& metadata) {
  return Exists("SELECT 1 FROM images WHERE metadata = ? LIMIT 1", metadata);
}

}  // namespace husk::images
