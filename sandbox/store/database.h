// SQLite behind Status: the only file that knows its API, with store.cc as its only user.
#ifndef HUSK_SANDBOX_STORE_DATABASE_H_
#define HUSK_SANDBOX_STORE_DATABASE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"

struct sqlite3;
struct sqlite3_stmt;

namespace husk::sandbox {

// One prepared statement. Values are bound in the order of their question marks. Not thread safe. A failure of any
// bind is kept and told by the next Step or Run.
class Statement {
 public:
  Statement& Text(std::string_view value);
  Statement& Integer(std::int64_t value);

  // True: a row is there to be read. False: done.
  StatusOr<bool> Step();
  // For statements without rows.
  Status Run();

  // Of the present row, counted from 0.
  [[nodiscard]] std::string ColumnText(int column) const;
  [[nodiscard]] std::int64_t ColumnInteger(int column) const;

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  Statement(sqlite3* database, sqlite3_stmt* statement) : database_(database), statement_(statement) {}
  void Bound(int result);

  sqlite3* database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int next_ = 1;
  Status failure_;
};

// One connection in WAL mode that holds the file alone: a second process that opens it is refused. Not thread safe.
class Database {
 public:
  // Makes the file if it is missing. `migrations[n]` turns schema version n into n + 1 (PRAGMA user_version). A file
  // of a newer schema is refused with FAILED_PRECONDITION, one that is no database with DATA_LOSS.
  static StatusOr<std::unique_ptr<Database>> Open(const std::string& path, const std::vector<std::string>& migrations);

  // One or more statements without values or rows.
  Status Execute(const std::string& sql);
  StatusOr<Statement> Prepare(std::string_view sql);
  // All that `body` does takes effect, or, if it fails, nothing of it.
  Status Transaction(const std::function<Status()>& body);

 private:
  struct Close {
    void operator()(sqlite3* database) const;
  };
  Database() = default;
  Status Migrate(const std::vector<std::string>& migrations);

  std::unique_ptr<sqlite3, Close> handle_;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_STORE_DATABASE_H_
