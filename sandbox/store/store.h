// What must survive huskd: pods, containers, and how far each operation on them had come.
#ifndef HUSK_SANDBOX_STORE_STORE_H_
#define HUSK_SANDBOX_STORE_STORE_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "sandbox/log/container_log.h"
#include "sandbox/network/network.h"
#include "sandbox/store/database.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// What was intended with a pod when the record was written. Whether its VM lives is never stored.
enum class PodPhase {
  kCreating,  // RunPod has not answered: whatever exists of it is to be undone
  kReady,
  kStopped,   // its VM and its network are gone
  kRemoving,  // to be removed, whatever exists of it
};

struct PodRecord {
  std::string id;
  PodConfig config;
  PodPhase phase = PodPhase::kCreating;
  std::int64_t created_at = 0;  // nanoseconds since 1970
  uid_t user = 0;               // QEMU's, and its group alike; no other pod's as long as the record exists
  NetworkResult network;
  std::string guest_boot_id;  // empty until the guest answered
  bool resizing = false;      // its VM or its containers' limits may not be what the records say
};

// The same for a container. A container that was started may have exited since: the guest knows.
enum class ContainerPhase { kCreating, kCreated, kStarted, kExited, kRemoving };

// A disk that a container uses beside its image's.
struct DiskRecord {
  std::string key;  // what is on it
  std::uint32_t lun = 0;

  bool operator==(const DiskRecord&) const = default;
};

struct ContainerRecord {
  ContainerPhase phase = ContainerPhase::kCreating;
  // Without `state`, which follows from the phase and the guest, and without `information`.
  ContainerStatus status;
  std::string stop_signal;           // the config's or the image's; may be empty
  std::optional<std::uint32_t> lun;  // of the image's disk, once it is attached
  std::vector<DiskRecord> disks;     // once they are attached, by their keys
  LogCheckpoint checkpoint;
  // What the guest confirmed last, while the config's limits are on their way to it. Absent: those of the config.
  std::optional<LinuxResources> limits_in_force;
};

// Thread safe: calls take turns on one connection. Each is one transaction, durable against the death of this process.
// Calls about a pod or container that has no record: NOT_FOUND, except for removals, which are OK.
class Store {
 public:
  // One process at a time: FAILED_PRECONDITION if another one has the file, or if its schema is newer.
  static StatusOr<std::unique_ptr<Store>> Open(const std::string& path);

  // Of the kernel under which the records were written; empty in a new store.
  StatusOr<std::string> BootId();
  Status SetBootId(const std::string& boot_id);

  // Adds the record, and gives it the lowest user in [first_user, first_user + user_count) that no other pod has:
  // RESOURCE_EXHAUSTED if there is none.
  StatusOr<uid_t> AddPod(const PodRecord& pod, uid_t first_user, std::uint32_t user_count);
  Status SetPodNetwork(const std::string& id, const NetworkResult& network);
  Status SetPodConfig(const std::string& id, const PodConfig& config);
  Status SetPodReady(const std::string& id, const std::string& guest_boot_id);
  // Before the first effect of a resize: true. When the VM and the guest are as the records say: false.
  Status SetPodResizing(const std::string& id, bool resizing);
  // Phases go forward only: one that is being removed stays so while its stop is recorded.
  Status SetPodPhase(const std::string& id, PodPhase phase);
  // With its containers.
  Status RemovePod(const std::string& id);
  StatusOr<std::vector<PodRecord>> Pods();

  Status AddContainer(const ContainerRecord& container);
  // `limits_in_force`: as ContainerRecord's.
  Status SetContainerConfig(const std::string& id, const ContainerConfig& config,
                            const std::optional<LinuxResources>& limits_in_force);
  // `user`: as the guest resolved it.
  Status SetContainerCreated(const std::string& id, std::uint32_t lun, const ResolvedUser& user,
                             const std::vector<DiskRecord>& disks);
  Status SetContainerStarted(const std::string& id, std::int64_t started_at);
  // Takes times, exit code, reason and message of `status`. The phase goes forward only, here too.
  Status SetContainerExited(const ContainerStatus& status);
  Status SetContainerPhase(const std::string& id, ContainerPhase phase);
  Status SetLogCheckpoint(const std::string& id, const LogCheckpoint& checkpoint);
  Status RemoveContainer(const std::string& id);
  // Of all pods, in the order of their making.
  StatusOr<std::vector<ContainerRecord>> Containers();

 private:
  explicit Store(std::unique_ptr<Database> database) : database_(std::move(database)) {}

  Mutex mutex_;
  const std::unique_ptr<Database> database_ ABSL_PT_GUARDED_BY(mutex_);
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_STORE_STORE_H_
