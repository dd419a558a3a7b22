#include "sandbox/volumes/pod_volumes.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/rollback.h"
#include "sandbox/logging.h"
#include "sandbox/volumes/volume_copy.h"

namespace husk::sandbox {
namespace {

using std::chrono::milliseconds;

// The kubelet's swap is several steps: they are taken together.
constexpr milliseconds kSettle{20};
constexpr milliseconds kLook{2000};
constexpr milliseconds kFirstRetry{500};
constexpr milliseconds kLongestRetry{30'000};
constexpr auto kCopyTimeout = std::chrono::minutes(2);
constexpr milliseconds kDeviceLook{50};
constexpr auto kDeviceTimeout = std::chrono::seconds(60);
constexpr auto kUndoTimeout = std::chrono::seconds(15);
// A tree that changes while it is read is read again.
constexpr int kReadAttempts = 20;
// At the channel's speed under emulation a copy of this takes most of a second, and a swap shall be seen within two.
constexpr std::int64_t kLargestCopy = std::int64_t{16} << 20;

constexpr std::uint32_t kDirectoryEvents = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB;
constexpr std::uint32_t kFileEvents = IN_CLOSE_WRITE | IN_ATTRIB;

// An image's is a disk of the VM.
bool IsOfHost(const ContainerMount& mount) {
  return mount.image.empty();
}

bool IsKept(const VolumeSource& source) {
  return source.kind == VolumeKind::kFiles || source.follow_mounts ||
         (source.kind == VolumeKind::kFile && !source.copy_back);
}

StatusOr<bool> IsLarge(const Context& context, const std::string& directory) {
  auto tree = ReadHostTree(directory);
  for (int count = 1; count < kReadAttempts && absl::IsAborted(tree.status()); ++count) {
    HUSK_RETURN_IF_ERROR(SleepFor(context, kSettle));
    tree = ReadHostTree(directory);
  }
  // More than can be copied at all.
  if (absl::IsResourceExhausted(tree.status())) return true;
  HUSK_RETURN_IF_ERROR(tree.status());
  return BytesOf(*tree) > kLargestCopy;
}

// For want of a port or of a file server.
bool CannotShare(const Status& status) {
  return absl::IsResourceExhausted(status) || absl::IsFailedPrecondition(status);
}

}  // namespace

PodVolumes::PodVolumes(std::string pod_id, std::string pod_uid, std::shared_ptr<agent::AgentClient> client,
                       SharedDirectories shared)
    : pod_id_(std::move(pod_id)),
      pod_uid_(std::move(pod_uid)),
      client_(std::move(client)),
      shared_(std::move(shared)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      inotify_(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)),
      mounts_(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) {}

PodVolumes::~PodVolumes() {
  Stop();
}

// ---- what containers need -------------------------------------------------------------------------------------------

StatusOr<std::vector<agent::v1::VolumeMount>> PodVolumes::Prepare(const Context& context,
                                                                  const std::vector<ContainerMount>& mounts) {
  std::vector<agent::v1::VolumeMount> result;
  for (const ContainerMount& mount : mounts) {
    if (!IsOfHost(mount)) continue;
    const std::string doing = absl::StrCat("mount ", mount.container_path);
    HUSK_ASSIGN_OR_RETURN_DOING(const VolumeSource source, FindVolumeSource(mount, pod_uid_), doing);
    HUSK_ASSIGN_OR_RETURN_DOING(std::string id, Provide(context, FindOrAdd(source)), doing);
    agent::v1::VolumeMount& made = result.emplace_back();
    made.set_volume_id(std::move(id));
    made.set_sub_path(source.sub_path);
    made.set_destination(mount.container_path);
    made.set_read_only(mount.read_only);
    for (const std::string& flag : mount.flags) made.add_flags(flag);
  }
  return result;
}

void PodVolumes::Adopt(const std::vector<ContainerMount>& mounts) {
  for (const ContainerMount& mount : mounts) {
    if (!IsOfHost(mount)) continue;
    const auto source = FindVolumeSource(mount, pod_uid_);
    if (!source.ok()) {
      spdlog::warn("pod={} mount {}: {}; the guest keeps what it has", pod_id_, mount.container_path,
                   Words(source.status()));
      continue;
    }
    const VolumePointer volume = FindOrAdd(*source, /*earlier=*/true);
    if (!IsKept(*source)) continue;
    const MutexLock lock(mutex_);
    Keep(volume);
    dirty_.insert(source->id);
  }
  Wake();
}

Status PodVolumes::CopyBack(const Context& context, const std::vector<ContainerMount>& mounts) {
  Status result;
  for (const ContainerMount& mount : mounts) {
    if (!IsOfHost(mount)) continue;
    const auto source = FindVolumeSource(mount, pod_uid_);
    if (!source.ok() || !source->copy_back) continue;
    result.Update(Annotate(CopyFileBack(context, *client_, source->id, source->path),
                           absl::StrCat("copy ", mount.container_path, " to the host")));
  }
  return result;
}

Status PodVolumes::Release(const Context& context, const std::vector<ContainerMount>& mounts) {
  Status result;
  for (const ContainerMount& mount : mounts) {
    if (!IsOfHost(mount)) continue;
    const auto source = FindVolumeSource(mount, pod_uid_);
    if (!source.ok() || !source->copy_back) continue;
    agent::v1::RemoveVolumeRequest request;
    request.set_volume_id(source->id);
    result.Update(client_->RemoveVolume(context, request));
    const MutexLock lock(mutex_);
    volumes_.erase(source->id);
  }
  return result;
}

PodVolumes::VolumePointer PodVolumes::FindOrAdd(const VolumeSource& source, bool earlier) {
  const MutexLock lock(mutex_);
  VolumePointer& volume = volumes_[source.id];
  if (volume == nullptr) volume = std::make_shared<Volume>(source, earlier);
  return volume;
}

StatusOr<std::string> PodVolumes::Provide(const Context& context, const VolumePointer& volume) {
  const MutexLock lock(volume->copying);
  HUSK_RETURN_IF_ERROR(Make(context, *volume));
  const VolumeSource& source = volume->source;
  if (*volume->kind != source.kind) return SharedInstead(source).id;
  // Watched before it is read: no change is missed.
  if (IsKept(source)) {
    const MutexLock also(mutex_);
    Keep(volume);
  }
  HUSK_RETURN_IF_ERROR(Copy(context, *volume));
  return source.id;
}

StatusOr<VolumeKind> PodVolumes::ChooseKind(const Context& context, const Volume& volume) const {
  const VolumeSource& source = volume.source;
  if (source.kind != VolumeKind::kFiles) return source.kind;
  // Containers of an earlier process have it as it was then, whatever its size is now.
  HUSK_ASSIGN_OR_RETURN(const bool is_shared, shared_.Has(context, SharedInstead(source).id));
  if (is_shared) return VolumeKind::kShared;
  if (volume.earlier) return VolumeKind::kFiles;
  HUSK_ASSIGN_OR_RETURN(const bool is_large, IsLarge(context, source.path));
  return is_large ? VolumeKind::kShared : VolumeKind::kFiles;
}

Status PodVolumes::Make(const Context& context, Volume& volume) {
  if (volume.made) return absl::OkStatus();
  const VolumeSource& source = volume.source;
  if (!volume.kind) {
    HUSK_ASSIGN_OR_RETURN(volume.kind, ChooseKind(context, volume));
  }
  if (*volume.kind == VolumeKind::kShared) {
    const bool instead = source.kind != VolumeKind::kShared;
    const Status shared = MakeShared(context, instead ? SharedInstead(source) : source);
    volume.made = shared.ok();
    if (shared.ok() || !instead || !CannotShare(shared)) return shared;
    spdlog::warn("pod={} {} is large, and has to be copied into the guest all the same: {}", pod_id_, source.path,
                 Words(shared));
    volume.kind = source.kind;
    volume.told_large = true;
  }
  HUSK_RETURN_IF_ERROR(MakeInGuest(context, source));
  volume.made = true;
  return absl::OkStatus();
}

Status PodVolumes::MakeInGuest(const Context& context, const VolumeSource& source) {
  agent::v1::CreateVolumeRequest request;
  request.set_volume_id(source.id);
  // A file is small, and what is in memory on the host, a secret, shall not reach a disk here.
  const bool in_memory = source.in_memory || source.kind == VolumeKind::kFile;
  request.set_medium(in_memory ? agent::v1::MEMORY : agent::v1::SCRATCH);
  if (source.page_size_bytes != 0) {
    request.set_medium(agent::v1::HUGE_PAGES);
    request.set_page_size_bytes(source.page_size_bytes);
  }
  request.set_single_file(source.kind == VolumeKind::kFile);
  request.set_mode(source.mode);
  request.set_uid(source.uid);
  request.set_gid(source.gid);
  request.set_size_bytes(source.size_bytes);
  return Annotate(client_->CreateVolume(context, request), "make the volume in the guest");
}

Status PodVolumes::MakeShared(const Context& context, const VolumeSource& source) {
  Rollback rollback(context, kUndoTimeout, [this](const std::string& step, const Status& status) {
    spdlog::warn("pod={} undo a shared directory: {}: {}", pod_id_, step, Words(status));
  });
  HUSK_ASSIGN_OR_RETURN(const bool shared_now, shared_.Share(context, source));
  // One that was there before may be in use.
  if (shared_now) rollback.Add("end the share", [&](const Context& undo) { return shared_.End(undo, source.id); });
  agent::v1::CreateVolumeRequest request;
  request.set_volume_id(source.id);
  request.set_medium(agent::v1::VIRTIOFS);
  const Context limited = context.WithTimeout(kDeviceTimeout);
  Status mounted = client_->CreateVolume(limited, request);
  // The guest finds the device a moment after it was plugged in.
  while (absl::IsNotFound(mounted) && SleepFor(limited, kDeviceLook).ok()) {
    mounted = client_->CreateVolume(limited, request);
  }
  HUSK_RETURN_IF_ERROR_DOING(mounted, absl::StrCat("mount ", source.path, " in the guest"));
  rollback.Commit();
  return absl::OkStatus();
}

Status PodVolumes::Follow(const Context& context, Volume& volume) {
  std::vector<std::string> gone;
  Status result = shared_.Follow(context, volume.source, gone);
  volume.gone.insert(volume.gone.end(), gone.begin(), gone.end());
  if (volume.gone.empty()) return result;
  // Until it looks there again the guest's kernel, and with it the host's file system, stays in use.
  agent::v1::LookAgainRequest request;
  request.set_volume_id(volume.source.id);
  for (const std::string& path : volume.gone) request.add_paths(path);
  const Status looked = client_->LookAgain(context, request);
  if (looked.ok()) volume.gone.clear();
  result.Update(looked);
  return result;
}

Status PodVolumes::Copy(const Context& context, Volume& volume) {
  if (volume.source.follow_mounts) return Follow(context, volume);
  if (*volume.kind == VolumeKind::kFile) return CopyFileNow(context, volume);
  if (*volume.kind != VolumeKind::kFiles) return absl::OkStatus();
  Status copied = CopyTreeNow(context, volume);
  for (int count = 1; count < kReadAttempts && absl::IsAborted(copied); ++count) {
    HUSK_RETURN_IF_ERROR(SleepFor(context, kSettle));
    copied = CopyTreeNow(context, volume);
  }
  return copied;
}

Status PodVolumes::CopyAgain(const Context& context, Volume& volume) {
  const MutexLock lock(volume.copying);
  HUSK_RETURN_IF_ERROR(Make(context, volume));
  // It is the host's own: the guest sees the change.
  if (*volume.kind == VolumeKind::kShared && !volume.source.follow_mounts) StopKeeping(volume);
  return Copy(context, volume);
}

Status PodVolumes::CopyTreeNow(const Context& context, Volume& volume) {
  HUSK_ASSIGN_OR_RETURN(HostTree now, ReadHostTree(volume.source.path));
  if (volume.tree == now) return absl::OkStatus();
  if (!volume.told_large && BytesOf(now) > kLargestCopy) {
    volume.told_large = true;
    spdlog::info("pod={} {} has grown to {} MiB: it stays a copy for this pod's life, so changes reach the guest late",
                 pod_id_, volume.source.path, BytesOf(now) >> 20);
  }
  // If it fails half-way the guest has something between the two: all is copied the next time.
  const HostTree before = std::exchange(volume.tree, std::nullopt).value_or(HostTree());
  HUSK_RETURN_IF_ERROR(CopyTree(context, *client_, volume.source.id, volume.source.path, before, now));
  volume.tree = std::move(now);
  return absl::OkStatus();
}

Status PodVolumes::CopyFileNow(const Context& context, Volume& volume) {
  HUSK_ASSIGN_OR_RETURN(HostEntry now, ReadHostFile(volume.source.path));
  // What the container has written into a file of its own stays.
  if (volume.file == now || (volume.file && volume.source.copy_back)) return absl::OkStatus();
  volume.file.reset();
  HUSK_RETURN_IF_ERROR(CopyFile(context, *client_, volume.source.id, volume.source.path, now));
  volume.file = std::move(now);
  return absl::OkStatus();
}

// ---- keeping them ---------------------------------------------------------------------------------------------------

void PodVolumes::Keep(const VolumePointer& volume) {
  if (stop_.stop_requested()) return;
  if (volume->source.follow_mounts) {
    following_.insert(volume->source.id);
  } else {
    Watch(volume->source);
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
}

void PodVolumes::Watch(const VolumeSource& source) {
  const std::string& id = source.id;
  const std::uint32_t events = source.kind == VolumeKind::kFile ? kFileEvents : kDirectoryEvents;
  const int watch =
      inotify_.valid() ? inotify_add_watch(inotify_.get(), source.path.c_str(), events | IN_MASK_ADD) : -1;
  if (watch >= 0) {
    watches_[watch] = id;
    unwatched_.erase(id);
  } else if (unwatched_.insert(id).second) {
    spdlog::warn("pod={} {} cannot be watched ({}): looking every {} ms", pod_id_, source.path,
                 Words(ErrnoStatus(errno, "inotify")), kLook.count());
  }
}

void PodVolumes::StopKeeping(const Volume& volume) {
  const MutexLock lock(mutex_);
  unwatched_.erase(volume.source.id);
  const auto watch = std::find_if(watches_.begin(), watches_.end(),
                                  [&](const auto& entry) { return entry.second == volume.source.id; });
  if (watch == watches_.end()) return;
  inotify_rm_watch(inotify_.get(), watch->first);
  watches_.erase(watch);
}

void PodVolumes::Wake() {
  const std::uint64_t one = 1;
  // Full means that it is readable already.
  [[maybe_unused]] const auto written = write(wake_.get(), &one, sizeof one);
}

StringMap PodVolumes::EmptyDirectories() {
  const MutexLock lock(mutex_);
  StringMap paths;
  for (const auto& [id, volume] : volumes_) {
    if (volume->source.kind == VolumeKind::kEmptyDirectory) paths[id] = volume->source.path;
  }
  return paths;
}

void PodVolumes::RequestStop() {
  stop_.request_stop();
  Wake();
}

void PodVolumes::Stop() {
  RequestStop();
  std::thread thread;
  {
    const MutexLock lock(mutex_);
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
}

bool PodVolumes::AwaitChanges(milliseconds longest) {
  std::array<pollfd, 3> polled{pollfd{.fd = wake_.get(), .events = POLLIN, .revents = 0},
                               pollfd{.fd = inotify_.get(), .events = POLLIN, .revents = 0},
                               pollfd{.fd = mounts_.get(), .events = POLLPRI, .revents = 0}};
  {
    // Nobody else is woken by each pod that comes and goes.
    const MutexLock lock(mutex_);
    if (following_.empty()) polled[2].fd = -1;
  }
  poll(polled.data(), polled.size(), static_cast<int>(longest.count()));
  std::uint64_t count = 0;
  [[maybe_unused]] const auto drained = read(wake_.get(), &count, sizeof count);
  if (polled[2].revents != 0) {
    const MutexLock lock(mutex_);
    dirty_.insert(following_.begin(), following_.end());
  }
  return !stop_.stop_requested();
}

void PodVolumes::TakeEvents() {
  alignas(inotify_event) std::array<char, 16384> buffer;  // NOLINT: read() fills it
  const MutexLock lock(mutex_);
  for (;;) {
    const ssize_t count = read(inotify_.get(), buffer.data(), buffer.size());
    if (count <= 0) return;
    for (std::size_t at = 0; at < static_cast<std::size_t>(count);) {
      const auto* const event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
      at += sizeof *event + event->len;
      if ((event->mask & IN_Q_OVERFLOW) != 0) {
        for (const auto& [watch, id] : watches_) dirty_.insert(id);
      }
      if (const auto watch = watches_.find(event->wd); watch != watches_.end()) dirty_.insert(watch->second);
    }
  }
}

std::vector<PodVolumes::VolumePointer> PodVolumes::TakeDirty() {
  const MutexLock lock(mutex_);
  dirty_.insert(unwatched_.begin(), unwatched_.end());
  std::vector<VolumePointer> list;
  for (const std::string& id : std::exchange(dirty_, {})) {
    if (const auto volume = volumes_.find(id); volume != volumes_.end()) list.push_back(volume->second);
  }
  return list;
}

void PodVolumes::Run() {
  const Context context =
      Context::Background(absl::StrCat("volumes-", pod_id_.substr(0, 12))).WithStopToken(stop_.get_token());
  milliseconds retry = kFirstRetry;
  bool failed = false;
  while (AwaitChanges(failed ? retry : kLook)) {
    if (!SleepFor(context, kSettle).ok()) return;
    TakeEvents();
    failed = false;
    for (const VolumePointer& volume : TakeDirty()) {
      const Status copied = CopyAgain(context.WithTimeout(kCopyTimeout), *volume);
      if (copied.ok() || stop_.stop_requested()) continue;
      spdlog::warn("pod={} bring {} to the guest: {}; trying again", pod_id_, volume->source.path, Words(copied));
      failed = true;
      const MutexLock lock(mutex_);
      dirty_.insert(volume->source.id);
    }
    retry = failed ? std::min(2 * retry, kLongestRetry) : kFirstRetry;
  }
}

}  // namespace husk::sandbox
