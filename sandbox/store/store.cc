#include "sandbox/store/store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/store/json_codec.h"

namespace husk::sandbox {
namespace {

const std::vector<std::string>& Migrations() {
  static const std::vector<std::string> migrations = {
      // 0 -> 1. Phases are numbered as in store.h.
      R"sql(
      CREATE TABLE facts (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE pods (
        id TEXT PRIMARY KEY,
        phase INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        user INTEGER NOT NULL UNIQUE,
        config TEXT NOT NULL,
        network TEXT NOT NULL,
        guest_boot_id TEXT NOT NULL
      ) STRICT;
      CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        pod_id TEXT NOT NULL REFERENCES pods(id) ON DELETE CASCADE,
        phase INTEGER NOT NULL,
        config TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        finished_at INTEGER NOT NULL,
        exit_code INTEGER NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        image_id TEXT NOT NULL,
        image_reference TEXT NOT NULL,
        log_path TEXT NOT NULL,
        stop_signal TEXT NOT NULL,
        lun INTEGER NOT NULL,                -- -1: none
        log_device INTEGER NOT NULL,
        log_inode INTEGER NOT NULL,
        log_size INTEGER NOT NULL,
        stdout_offset INTEGER NOT NULL,
        stderr_offset INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX containers_of_pod ON containers(pod_id);
      )sql",
      // 1 -> 2. JSON; empty until the guest has resolved it.
      "ALTER TABLE containers ADD COLUMN user TEXT NOT NULL DEFAULT ''",
      // 2 -> 3.
      R"sql(
      CREATE TABLE container_disks (
        container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        lun INTEGER NOT NULL,
        PRIMARY KEY (container_id, key)
      ) STRICT, WITHOUT ROWID;
      )sql",
      // 3 -> 4.
      "ALTER TABLE pods ADD COLUMN resizing INTEGER NOT NULL DEFAULT 0",
      // 4 -> 5. JSON; empty if they are those of the config.
      "ALTER TABLE containers ADD COLUMN limits_in_force TEXT NOT NULL DEFAULT ''",
  };
  return migrations;
}

// SQLite's integers are signed; an inode may have the highest bit.
std::int64_t Signed(std::uint64_t value) {
  return static_cast<std::int64_t>(value);
}
std::uint64_t Unsigned(std::int64_t value) {
  return static_cast<std::uint64_t>(value);
}

Status Change(Database& database, Statement& statement, const char* what, const std::string& id) {
  HUSK_RETURN_IF_ERROR_DOING(statement.Run(), absl::StrCat("store ", what, " ", id));
  HUSK_ASSIGN_OR_RETURN(Statement changes, database.Prepare("SELECT changes()"));
  HUSK_RETURN_IF_ERROR(changes.Step().status());
  if (changes.ColumnInteger(0) == 0) return absl::NotFoundError(absl::StrCat("the store has no ", what, " ", id));
  return absl::OkStatus();
}

StatusOr<uid_t> LowestFreeUser(Database& database, uid_t first_user, std::uint32_t user_count) {
  HUSK_ASSIGN_OR_RETURN(Statement users, database.Prepare("SELECT user FROM pods WHERE user >= ? ORDER BY user"));
  users.Integer(first_user);
  std::int64_t candidate = first_user;
  for (;;) {
    HUSK_ASSIGN_OR_RETURN(const bool row, users.Step());
    if (!row || users.ColumnInteger(0) != candidate) break;
    ++candidate;
  }
  if (candidate >= std::int64_t{first_user} + user_count) {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", user_count, " user ids from ", first_user, " on are taken by pods"));
  }
  return static_cast<uid_t>(candidate);
}

StatusOr<PodRecord> ReadPod(const Statement& row) {
  PodRecord pod;
  pod.id = row.ColumnText(0);
  pod.phase = static_cast<PodPhase>(row.ColumnInteger(1));
  pod.created_at = row.ColumnInteger(2);
  pod.user = static_cast<uid_t>(row.ColumnInteger(3));
  HUSK_ASSIGN_OR_RETURN_DOING(pod.config, PodConfigFromJson(row.ColumnText(4)), absl::StrCat("pod ", pod.id));
  HUSK_ASSIGN_OR_RETURN_DOING(pod.network, NetworkResultFromJson(row.ColumnText(5)), absl::StrCat("pod ", pod.id));
  pod.guest_boot_id = row.ColumnText(6);
  pod.resizing = row.ColumnInteger(7) != 0;
  return pod;
}

StatusOr<ContainerRecord> ReadContainer(const Statement& row) {
  ContainerRecord container;
  ContainerStatus& status = container.status;
  int column = 0;
  status.id = row.ColumnText(column++);
  status.pod_id = row.ColumnText(column++);
  container.phase = static_cast<ContainerPhase>(row.ColumnInteger(column++));
  HUSK_ASSIGN_OR_RETURN_DOING(status.config, ContainerConfigFromJson(row.ColumnText(column++)),
                              absl::StrCat("container ", status.id));
  status.created_at = row.ColumnInteger(column++);
  status.started_at = row.ColumnInteger(column++);
  status.finished_at = row.ColumnInteger(column++);
  status.exit_code = static_cast<std::int32_t>(row.ColumnInteger(column++));
  status.reason = row.ColumnText(column++);
  status.message = row.ColumnText(column++);
  status.image_id = row.ColumnText(column++);
  status.image_reference = row.ColumnText(column++);
  status.log_path = row.ColumnText(column++);
  container.stop_signal = row.ColumnText(column++);
  const std::int64_t lun = row.ColumnInteger(column++);
  if (lun >= 0) container.lun = static_cast<std::uint32_t>(lun);
  container.checkpoint.device = Unsigned(row.ColumnInteger(column++));
  container.checkpoint.inode = Unsigned(row.ColumnInteger(column++));
  container.checkpoint.size = Unsigned(row.ColumnInteger(column++));
  container.checkpoint.stdout_offset = Unsigned(row.ColumnInteger(column++));
  container.checkpoint.stderr_offset = Unsigned(row.ColumnInteger(column++));
  if (const std::string user = row.ColumnText(column++); !user.empty()) {
    HUSK_ASSIGN_OR_RETURN_DOING(status.user, ResolvedUserFromJson(user), absl::StrCat("container ", status.id));
  }
  if (const std::string limits = row.ColumnText(column++); !limits.empty()) {
    HUSK_ASSIGN_OR_RETURN_DOING(container.limits_in_force, LinuxResourcesFromJson(limits),
                                absl::StrCat("container ", status.id));
  }
  return container;
}

StatusOr<std::vector<DiskRecord>> ReadDisks(Database& database, const std::string& container_id) {
  HUSK_ASSIGN_OR_RETURN(Statement query,
                        database.Prepare("SELECT key, lun FROM container_disks WHERE container_id = ? ORDER BY key"));
  query.Text(container_id);
  std::vector<DiskRecord> disks;
  for (;;) {
    HUSK_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return disks;
    disks.push_back({.key = query.ColumnText(0), .lun = static_cast<std::uint32_t>(query.ColumnInteger(1))});
  }
}

}  // namespace

StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& path) {
  HUSK_ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path, Migrations()));
  return std::unique_ptr<Store>(new Store(std::move(database)));
}

StatusOr<std::string> Store::BootId() {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement query, database_->Prepare("SELECT value FROM facts WHERE name = 'boot_id'"));
  HUSK_ASSIGN_OR_RETURN(const bool row, query.Step());
  return row ? query.ColumnText(0) : std::string();
}

Status Store::SetBootId(const std::string& boot_id) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement insert, database_->Prepare("INSERT OR REPLACE INTO facts VALUES ('boot_id', ?)"));
  return insert.Text(boot_id).Run();
}

StatusOr<uid_t> Store::AddPod(const PodRecord& pod, uid_t first_user, std::uint32_t user_count) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(const uid_t user, LowestFreeUser(*database_, first_user, user_count));
  HUSK_ASSIGN_OR_RETURN(Statement insert, database_->Prepare("INSERT INTO pods VALUES (?, ?, ?, ?, ?, ?, ?, ?)"));
  insert.Text(pod.id).Integer(static_cast<int>(pod.phase)).Integer(pod.created_at).Integer(user);
  insert.Text(ToJson(pod.config)).Text(ToJson(pod.network)).Text(pod.guest_boot_id).Integer(pod.resizing ? 1 : 0);
  HUSK_RETURN_IF_ERROR_DOING(insert.Run(), absl::StrCat("store pod ", pod.id));
  return user;
}

Status Store::SetPodNetwork(const std::string& id, const NetworkResult& network) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement update, database_->Prepare("UPDATE pods SET network = ? WHERE id = ?"));
  return Change(*database_, update.Text(ToJson(network)).Text(id), "pod", id);
}

Status Store::SetPodConfig(const std::string& id, const PodConfig& config) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement update, database_->Prepare("UPDATE pods SET config = ? WHERE id = ?"));
  return Change(*database_, update.Text(ToJson(config)).Text(id), "pod", id);
}

Status Store::SetPodReady(const std::string& id, const std::string& guest_boot_id) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement update,
                        database_->Prepare("UPDATE pods SET phase = ?, guest_boot_id = ? WHERE id = ?"));
  update.Integer(static_cast<int>(PodPhase::kReady)).Text(guest_boot_id).Text(id);
  return Change(*database_, update, "pod", id);
}

Status Store::SetPodResizing(const std::string& id, bool resizing) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement update, database_->Prepare("UPDATE pods SET resizing = ? WHERE id = ?"));
  return Change(*database_, update.Integer(resizing ? 1 : 0).Text(id), "pod", id);
}

Status Store::SetPodPhase(const std::string& id, PodPhase phase) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement update, database_->Prepare("UPDATE pods SET phase = MAX(phase, ?) WHERE id = ?"));
  return Change(*database_, update.Integer(static_cast<int>(phase)).Text(id), "pod", id);
}

Status Store::RemovePod(const std::string& id) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement remove, database_->Prepare("DELETE FROM pods WHERE id = ?"));
  return Annotate(remove.Text(id).Run(), absl::StrCat("remove pod ", id, " from the store"));
}

StatusOr<std::vector<PodRecord>> Store::Pods() {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(
      Statement query, database_->Prepare("SELECT id, phase, created_at, user, config, network, guest_boot_id, resizing"
                                          " FROM pods ORDER BY rowid"));
  std::vector<PodRecord> pods;
  for (;;) {
    HUSK_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return pods;
    HUSK_ASSIGN_OR_RETURN(pods.emplace_back(), ReadPod(query));
  }
}

Status Store::AddContainer(const ContainerRecord& container) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(
      Statement insert,
      database_->Prepare(
          "INSERT INTO containers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  const ContainerStatus& status = container.status;
  const LogCheckpoint& checkpoint = container.checkpoint;
  insert.Text(status.id).Text(status.pod_id).Integer(static_cast<int>(container.phase)).Text(ToJson(status.config));
  insert.Integer(status.created_at).Integer(status.started_at).Integer(status.finished_at);
  insert.Integer(status.exit_code).Text(status.reason).Text(status.message);
  insert.Text(status.image_id).Text(status.image_reference).Text(status.log_path).Text(container.stop_signal);
  insert.Integer(container.lun ? std::int64_t{*container.lun} : -1);
  insert.Integer(Signed(checkpoint.device)).Integer(Signed(checkpoint.inode)).Integer(Signed(checkpoint.size));
  insert.Integer(Signed(checkpoint.stdout_offset)).Integer(Signed(checkpoint.stderr_offset));
  insert.Text(status.user ? ToJson(*status.user) : "");
  insert.Text(container.limits_in_force ? ToJson(*container.limits_in_force) : "");
  return Annotate(insert.Run(), absl::StrCat("store container ", status.id));
}

Status Store::SetContainerConfig(const std::string& id, const ContainerConfig& config,
                                 const std::optional<LinuxResources>& limits_in_force) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement update,
                        database_->Prepare("UPDATE containers SET config = ?, limits_in_force = ? WHERE id = ?"));
  update.Text(ToJson(config)).Text(limits_in_force ? ToJson(*limits_in_force) : "").Text(id);
  return Change(*database_, update, "container", id);
}

Status Store::SetContainerCreated(const std::string& id, std::uint32_t lun, const ResolvedUser& user,
                                  const std::vector<DiskRecord>& disks) {
  const MutexLock lock(mutex_);
  Database& database = *database_;
  return database.Transaction([&]() -> Status {
    HUSK_ASSIGN_OR_RETURN(Statement update,
                          database.Prepare("UPDATE containers SET phase = ?, lun = ?, user = ? WHERE id = ?"));
    update.Integer(static_cast<int>(ContainerPhase::kCreated)).Integer(lun).Text(ToJson(user)).Text(id);
    HUSK_RETURN_IF_ERROR(Change(database, update, "container", id));
    for (const DiskRecord& disk : disks) {
      HUSK_ASSIGN_OR_RETURN(Statement insert, database.Prepare("INSERT INTO container_disks VALUES (?, ?, ?)"));
      HUSK_RETURN_IF_ERROR_DOING(insert.Text(id).Text(disk.key).Integer(disk.lun).Run(),
                                 absl::StrCat("store the disks of container ", id));
    }
    return absl::OkStatus();
  });
}

Status Store::SetContainerStarted(const std::string& id, std::int64_t started_at) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement update,
                        database_->Prepare("UPDATE containers SET phase = ?, started_at = ? WHERE id = ?"));
  update.Integer(static_cast<int>(ContainerPhase::kStarted)).Integer(started_at).Text(id);
  return Change(*database_, update, "container", id);
}

Status Store::SetContainerExited(const ContainerStatus& status) {
  const MutexLock lock(mutex_);
  // A container that is being removed stays so: its exit is a part of that.
  HUSK_ASSIGN_OR_RETURN(Statement update,
                        database_->Prepare("UPDATE containers SET phase = MAX(phase, ?), started_at = ?,"
                                           " finished_at = ?, exit_code = ?, reason = ?, message = ? WHERE id = ?"));
  update.Integer(static_cast<int>(ContainerPhase::kExited)).Integer(status.started_at).Integer(status.finished_at);
  update.Integer(status.exit_code).Text(status.reason).Text(status.message).Text(status.id);
  return Change(*database_, update, "container", status.id);
}

Status Store::SetContainerPhase(const std::string& id, ContainerPhase phase) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement update,
                        database_->Prepare("UPDATE containers SET phase = MAX(phase, ?) WHERE id = ?"));
  return Change(*database_, update.Integer(static_cast<int>(phase)).Text(id), "container", id);
}

Status Store::SetLogCheckpoint(const std::string& id, const LogCheckpoint& checkpoint) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement update,
                        database_->Prepare("UPDATE containers SET log_device = ?, log_inode = ?, log_size = ?,"
                                           " stdout_offset = ?, stderr_offset = ? WHERE id = ?"));
  update.Integer(Signed(checkpoint.device)).Integer(Signed(checkpoint.inode)).Integer(Signed(checkpoint.size));
  update.Integer(Signed(checkpoint.stdout_offset)).Integer(Signed(checkpoint.stderr_offset)).Text(id);
  return Change(*database_, update, "container", id);
}

Status Store::RemoveContainer(const std::string& id) {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(Statement remove, database_->Prepare("DELETE FROM containers WHERE id = ?"));
  return Annotate(remove.Text(id).Run(), absl::StrCat("remove container ", id, " from the store"));
}

StatusOr<std::vector<ContainerRecord>> Store::Containers() {
  const MutexLock lock(mutex_);
  HUSK_ASSIGN_OR_RETURN(
      Statement query,
      database_->Prepare("SELECT id, pod_id, phase, config, created_at, started_at, finished_at, exit_code, reason,"
                         " message, image_id, image_reference, log_path, stop_signal, lun, log_device, log_inode,"
                         " log_size, stdout_offset, stderr_offset, user, limits_in_force FROM containers"
                         " ORDER BY rowid"));
  std::vector<ContainerRecord> containers;
  for (;;) {
    HUSK_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return containers;
    HUSK_ASSIGN_OR_RETURN(containers.emplace_back(), ReadContainer(query));
    HUSK_ASSIGN_OR_RETURN(containers.back().disks, ReadDisks(*database_, containers.back().status.id));
  }
}

}  // namespace husk::sandbox
