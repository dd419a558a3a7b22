#include "sandbox/store/database.h"

#include <sqlite3.h>

#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

Status SqliteStatus(sqlite3* database, int result, absl::string_view doing) {
  if (result == SQLITE_OK || result == SQLITE_DONE || result == SQLITE_ROW) return absl::OkStatus();
  const std::string message =
      absl::StrCat(doing, ": ", database == nullptr ? sqlite3_errstr(result) : sqlite3_errmsg(database));
  switch (result & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::FailedPreconditionError(absl::StrCat(message, " (is another huskd using this directory?)"));
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return absl::ResourceExhaustedError(message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(message);
    case SQLITE_CONSTRAINT:
      return absl::AlreadyExistsError(message);
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
      return absl::PermissionDeniedError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace

void Statement::Finalize::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

void Statement::Bound(int result) {
  if (failure_.ok()) failure_ = SqliteStatus(database_, result, "bind a value");
}

Statement& Statement::Text(std::string_view value) {
  // SQLITE_TRANSIENT's definition casts an integer to a pointer in C's way.
  Bound(sqlite3_bind_text64(statement_.get(), next_++, value.data() == nullptr ? "" : value.data(), value.size(),
                            SQLITE_TRANSIENT,  // NOLINT(performance-no-int-to-ptr): SQLite's own constant
                            SQLITE_UTF8));
  return *this;
}

Statement& Statement::Integer(std::int64_t value) {
  Bound(sqlite3_bind_int64(statement_.get(), next_++, value));
  return *this;
}

StatusOr<bool> Statement::Step() {
  HUSK_RETURN_IF_ERROR(failure_);
  const int result = sqlite3_step(statement_.get());
  HUSK_RETURN_IF_ERROR(SqliteStatus(database_, result, sqlite3_sql(statement_.get())));
  return result == SQLITE_ROW;
}

Status Statement::Run() {
  bool row = true;
  while (row) {
    HUSK_ASSIGN_OR_RETURN(row, Step());
  }
  return absl::OkStatus();
}

std::string Statement::ColumnText(int column) const {
  const void* bytes = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return bytes == nullptr ? std::string()
                          : std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(size));
}

std::int64_t Statement::ColumnInteger(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

void Database::Close::operator()(sqlite3* database) const {
  sqlite3_close_v2(database);
}

StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path,
                                                   const std::vector<std::string>& migrations) {
  std::unique_ptr<Database> database(new Database());
  sqlite3* handle = nullptr;
  const int result =
      sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  database->handle_.reset(handle);
  const std::string doing = absl::StrCat("open the store ", path);
  HUSK_RETURN_IF_ERROR(SqliteStatus(handle, result, doing));
  sqlite3_extended_result_codes(handle, 1);
  // A predecessor that is being killed may hold the file a moment longer.
  sqlite3_busy_timeout(handle, 5000);
  // NORMAL: a killed process loses nothing; a power failure may lose the last transactions, never the file.
  HUSK_RETURN_IF_ERROR_DOING(database->Execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                                               "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON"),
                             doing);
  HUSK_RETURN_IF_ERROR_DOING(database->Migrate(migrations), doing);
  return database;
}

Status Database::Execute(const std::string& sql) {
  return SqliteStatus(handle_.get(), sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr), sql);
}

StatusOr<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  HUSK_RETURN_IF_ERROR(SqliteStatus(
      handle_.get(), sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()), &statement, nullptr),
      absl::string_view(sql.data(), sql.size())));
  return Statement(handle_.get(), statement);
}

Status Database::Transaction(const std::function<Status()>& body) {
  HUSK_RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
  Status status = body();
  if (status.ok()) status = Execute("COMMIT");
  // SQLite may have rolled back by itself (disk full): then this fails, and there is nothing to do.
  if (!status.ok()) Execute("ROLLBACK").IgnoreError();
  return status;
}

Status Database::Migrate(const std::vector<std::string>& migrations) {
  std::int64_t version = 0;
  {
    HUSK_ASSIGN_OR_RETURN(Statement query, Prepare("PRAGMA user_version"));
    HUSK_RETURN_IF_ERROR(query.Step().status());
    version = query.ColumnInteger(0);
  }
  const auto newest = static_cast<std::int64_t>(migrations.size());
  if (version < 0 || version > newest) {
    return absl::FailedPreconditionError(absl::StrCat("its schema has version ", version, ", this huskd knows ", newest,
                                                      " and older ones: was it written by a newer huskd?"));
  }
  for (; version < newest; ++version) {
    const auto step = [&]() -> Status {
      HUSK_RETURN_IF_ERROR(Execute(migrations[static_cast<std::size_t>(version)]));
      return Execute(absl::StrCat("PRAGMA user_version = ", version + 1));
    };
    HUSK_RETURN_IF_ERROR_DOING(Transaction(step), absl::StrCat("migrate its schema to version ", version + 1));
  }
  return absl::OkStatus();
}

}  // namespace husk::sandbox
