// The volumes of one pod's guest.
#ifndef HUSK_SANDBOX_VOLUMES_POD_VOLUMES_H_
#define HUSK_SANDBOX_VOLUMES_POD_VOLUMES_H_

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "sandbox/types.h"
#include "sandbox/volumes/host_tree.h"
#include "sandbox/volumes/shared_directories.h"
#include "sandbox/volumes/volume_source.h"

namespace husk::sandbox {

// Makes volumes in the guest, and keeps copied ones like the host's files: a thread of its own, started with the first
// of them, waits for changes (inotify; where that fails it looks every two seconds) and repeats a copy that failed. The
// same thread follows what the host mounts below directories that want it.
// Thread safe.
class PodVolumes {
 public:
  PodVolumes(std::string pod_id, std::string pod_uid, std::shared_ptr<agent::AgentClient> client,
             SharedDirectories shared);
  PodVolumes(const PodVolumes&) = delete;
  PodVolumes& operator=(const PodVolumes&) = delete;
  ~PodVolumes();

  // Makes what is missing, copies what has changed, and says how the guest is to mount it. Errors name the mount.
  StatusOr<std::vector<agent::v1::VolumeMount>> Prepare(const Context& context,
                                                        const std::vector<ContainerMount>& mounts);
  // Of a container that an earlier process prepared: its volumes are kept from now on. Returns at once.
  void Adopt(const std::vector<ContainerMount>& mounts);
  // What the container left for the host: to be called when it has ended, before anyone is told.
  Status CopyBack(const Context& context, const std::vector<ContainerMount>& mounts);
  // Removes the volumes that only this container, which is gone from the guest, could have.
  Status Release(const Context& context, const std::vector<ContainerMount>& mounts);

  // The host's paths of the empty directories that are in the guest, by the volume's id.
  [[nodiscard]] StringMap EmptyDirectories();

  // Makes the thread end soon; what is under way fails. The guest keeps what it has.
  void RequestStop();
  // Returns when the thread has ended.
  void Stop();

 private:
  struct Volume {
    Volume(VolumeSource described, bool of_earlier_process)
        : source(std::move(described)), earlier(of_earlier_process) {}

    const VolumeSource source;
    const bool earlier;  // an earlier process made it
    Mutex copying;       // one copy at a time; held during calls of the guest
    // source.kind, or kShared instead of kFiles: chosen once, for the pod's life.
    std::optional<VolumeKind> kind ABSL_GUARDED_BY(copying);
    bool made ABSL_GUARDED_BY(copying) = false;
    bool told_large ABSL_GUARDED_BY(copying) = false;
    // What the guest has; nothing: not known.
    std::optional<HostTree> tree ABSL_GUARDED_BY(copying);
    std::optional<HostEntry> file ABSL_GUARDED_BY(copying);
    // What was unmounted, and the guest does not know yet.
    std::vector<std::string> gone ABSL_GUARDED_BY(copying);
  };
  using VolumePointer = std::shared_ptr<Volume>;

  VolumePointer FindOrAdd(const VolumeSource& source, bool earlier = false);
  // Makes it, copies into it and keeps it, as its kind wants. The id that is to be mounted.
  StatusOr<std::string> Provide(const Context& context, const VolumePointer& volume);
  StatusOr<VolumeKind> ChooseKind(const Context& context, const Volume& volume) const;
  Status Make(const Context& context, Volume& volume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(volume.copying);
  Status MakeInGuest(const Context& context, const VolumeSource& source);
  Status MakeShared(const Context& context, const VolumeSource& source);
  // What the host has mounted below it, and unmounted.
  Status Follow(const Context& context, Volume& volume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(volume.copying);
  Status Copy(const Context& context, Volume& volume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(volume.copying);
  // After a change on the host.
  Status CopyAgain(const Context& context, Volume& volume);
  Status CopyTreeNow(const Context& context, Volume& volume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(volume.copying);
  Status CopyFileNow(const Context& context, Volume& volume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(volume.copying);

  void Watch(const VolumeSource& source) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Keep(const VolumePointer& volume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StopKeeping(const Volume& volume);
  void Wake();
  void Run();
  // False when it is time to stop.
  bool AwaitChanges(std::chrono::milliseconds longest);
  void TakeEvents();
  std::vector<VolumePointer> TakeDirty();

  const std::string pod_id_;
  const std::string pod_uid_;
  const std::shared_ptr<agent::AgentClient> client_;
  const SharedDirectories shared_;
  std::stop_source stop_;
  const UniqueFd wake_;     // an eventfd
  const UniqueFd inotify_;  // invalid where the host gives none
  const UniqueFd mounts_;   // the host's table of mounts, which says when it changes

  Mutex mutex_;
  std::map<std::string, VolumePointer> volumes_ ABSL_GUARDED_BY(mutex_);  // by id
  std::map<int, std::string> watches_ ABSL_GUARDED_BY(mutex_);            // inotify's number to the volume's id
  std::set<std::string> following_ ABSL_GUARDED_BY(mutex_);  // to be looked at when the host's mounts change
  std::set<std::string> unwatched_ ABSL_GUARDED_BY(mutex_);  // to be looked at from time to time
  std::set<std::string> dirty_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_VOLUMES_POD_VOLUMES_H_
