#include "sandbox/volumes/volume_copy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

// Of one request: well below a frame, so that the channel's other calls do not wait long.
constexpr std::size_t kPiece = std::size_t{512} << 10;
constexpr int kOperations = 256;
// The kubelet reads 4 KiB of a termination message.
constexpr std::size_t kMostBack = std::size_t{64} << 10;

bool IsTopLevel(const std::string& path) {
  return path.find('/') == std::string::npos;
}

void SetOwner(const HostEntry& entry, agent::v1::FileOwner& owner) {
  owner.set_mode(entry.mode);
  owner.set_uid(entry.uid);
  owner.set_gid(entry.gid);
}

// The next bytes; fewer than a piece only at the end.
StatusOr<std::string> ReadPiece(int file) {
  std::string data(kPiece, '\0');
  std::size_t size = 0;
  while (size < data.size()) {
    const ssize_t count = read(file, data.data() + size, data.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "read");
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
  }
  data.resize(size);
  return data;
}

// Collects operations into requests.
class Sender {
 public:
  Sender(const Context& context, agent::AgentClient& client, const std::string& volume_id)
      : context_(context), client_(client) {
    request_.set_volume_id(volume_id);
  }

  Status Add(agent::v1::FileOperation operation) {
    bytes_ += operation.ByteSizeLong();
    *request_.add_operations() = std::move(operation);
    return bytes_ >= kPiece || request_.operations_size() >= kOperations ? Flush() : absl::OkStatus();
  }
  Status Flush() {
    if (request_.operations().empty()) return absl::OkStatus();
    HUSK_RETURN_IF_ERROR(client_.ChangeVolume(context_, request_));
    request_.clear_operations();
    bytes_ = 0;
    return absl::OkStatus();
  }

  // All that `file` holds, as `path` in the volume.
  Status AddFile(int file, const std::string& path, const HostEntry& attributes) {
    std::uint64_t offset = 0;
    for (bool last = false; !last;) {
      HUSK_ASSIGN_OR_RETURN(std::string data, ReadPiece(file));
      last = data.size() < kPiece;
      agent::v1::FileOperation operation;
      auto& write = *operation.mutable_write_file();
      write.set_path(path);
      write.set_offset(offset);
      write.set_last(last);
      SetOwner(attributes, *write.mutable_owner());
      offset += data.size();
      write.set_data(std::move(data));
      HUSK_RETURN_IF_ERROR(Add(std::move(operation)));
    }
    return absl::OkStatus();
  }

 private:
  const Context& context_;
  agent::AgentClient& client_;
  agent::v1::ChangeVolumeRequest request_;
  std::size_t bytes_ = 0;
};

// The steps from one state of a volume to the next.
class TreeCopy {
 public:
  TreeCopy(Sender& sender, const std::string& directory, const HostTree& before, const HostTree& now)
      : sender_(sender), directory_(directory), before_(before), now_(now) {}

  Status Run() {
    HUSK_RETURN_IF_ERROR(RemoveOtherTypes());
    HUSK_RETURN_IF_ERROR(ForEachNew(HostEntry::Type::kDirectory, &TreeCopy::MakeDirectory));
    HUSK_RETURN_IF_ERROR(ForEachNew(HostEntry::Type::kFile, &TreeCopy::WriteFile));
    for (const bool top_level : {false, true}) {
      for (const auto& [path, entry] : now_) {
        if (entry.type != HostEntry::Type::kSymlink || IsTopLevel(path) != top_level || IsThere(path, entry)) continue;
        HUSK_RETURN_IF_ERROR(MakeSymlink(path, entry));
      }
    }
    HUSK_RETURN_IF_ERROR(RemoveGone());
    return sender_.Flush();
  }

 private:
  using Step = Status (TreeCopy::*)(const std::string&, const HostEntry&);

  [[nodiscard]] bool IsThere(const std::string& path, const HostEntry& entry) const {
    const auto old = before_.find(path);
    return old != before_.end() && old->second == entry;
  }

  Status ForEachNew(HostEntry::Type type, Step step) {
    for (const auto& [path, entry] : now_) {
      if (entry.type == type && !IsThere(path, entry)) HUSK_RETURN_IF_ERROR((this->*step)(path, entry));
    }
    return absl::OkStatus();
  }

  // A directory cannot take the place of a file at once, nor a file that of a directory.
  Status RemoveOtherTypes() {
    for (const auto& [path, entry] : now_) {
      const auto old = before_.find(path);
      const bool is_directory = entry.type == HostEntry::Type::kDirectory;
      if (old == before_.end() || (old->second.type == HostEntry::Type::kDirectory) == is_directory) continue;
      HUSK_RETURN_IF_ERROR(Remove(path));
    }
    return absl::OkStatus();
  }

  Status MakeDirectory(const std::string& path, const HostEntry& entry) {
    agent::v1::FileOperation operation;
    operation.mutable_make_directory()->set_path(path);
    SetOwner(entry, *operation.mutable_make_directory()->mutable_owner());
    return sender_.Add(std::move(operation));
  }

  Status WriteFile(const std::string& path, const HostEntry& entry) {
    HUSK_ASSIGN_OR_RETURN(const UniqueFd file, OpenInTree(directory_, path));
    return Annotate(sender_.AddFile(file.get(), path, entry), absl::StrCat("copy ", directory_, "/", path));
  }

  Status MakeSymlink(const std::string& path, const HostEntry& entry) {
    agent::v1::FileOperation operation;
    auto& link = *operation.mutable_make_symlink();
    link.set_path(path);
    link.set_target(entry.target);
    link.set_uid(entry.uid);
    link.set_gid(entry.gid);
    return sender_.Add(std::move(operation));
  }

  Status Remove(const std::string& path) {
    agent::v1::FileOperation operation;
    operation.mutable_remove()->set_path(path);
    return sender_.Add(std::move(operation));
  }

  Status RemoveGone() {
    // What was there before the first copy of this process is not in `before`: at the top it goes by its absence here.
    agent::v1::FileOperation keep;
    keep.mutable_keep_only();
    for (const auto& [path, entry] : now_) {
      if (IsTopLevel(path)) keep.mutable_keep_only()->add_names(path);
    }
    HUSK_RETURN_IF_ERROR(sender_.Add(std::move(keep)));
    for (const auto& [path, entry] : before_) {
      const bool parent_stays = !IsTopLevel(path) && now_.contains(path.substr(0, path.rfind('/')));
      if (parent_stays && !now_.contains(path)) HUSK_RETURN_IF_ERROR(Remove(path));
    }
    return absl::OkStatus();
  }

  Sender& sender_;
  const std::string& directory_;
  const HostTree& before_;
  const HostTree& now_;
};

StatusOr<std::string> ReadVolume(const Context& context, agent::AgentClient& client, const std::string& volume_id) {
  agent::v1::ReadVolumeRequest request;
  request.set_volume_id(volume_id);
  std::string text;
  while (text.size() < kMostBack) {
    request.set_offset(text.size());
    request.set_maximum_bytes(static_cast<std::uint32_t>(kMostBack - text.size()));
    HUSK_ASSIGN_OR_RETURN(const auto response, client.ReadVolume(context, request));
    if (response.data().empty()) break;
    text += response.data();
  }
  // A guest may say more than it was asked for.
  if (text.size() > kMostBack) text.resize(kMostBack);
  return text;
}

}  // namespace

Status CopyTree(const Context& context, agent::AgentClient& client, const std::string& volume_id,
                const std::string& directory, const HostTree& before, const HostTree& now) {
  Sender sender(context, client, volume_id);
  return TreeCopy(sender, directory, before, now).Run();
}

Status CopyFile(const Context& context, agent::AgentClient& client, const std::string& volume_id,
                const std::string& path, const HostEntry& attributes) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  Sender sender(context, client, volume_id);
  HUSK_RETURN_IF_ERROR_DOING(sender.AddFile(file.get(), "", attributes), absl::StrCat("copy ", path));
  return sender.Flush();
}

Status CopyFileBack(const Context& context, agent::AgentClient& client, const std::string& volume_id,
                    const std::string& path) {
  HUSK_ASSIGN_OR_RETURN(const std::string text, ReadVolume(context, client, volume_id));
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info{};
  if (!file.valid() || fstat(file.get(), &info) != 0) return ErrnoStatus(errno, absl::StrCat("open ", path));
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is no file any more"));
  if (text.empty() && info.st_size == 0) return absl::OkStatus();
  if (ftruncate(file.get(), 0) != 0) return ErrnoStatus(errno, absl::StrCat("truncate ", path));
  for (std::size_t written = 0; written < text.size();) {
    const ssize_t count = pwrite(file.get(), text.data() + written, text.size() - written, static_cast<off_t>(written));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, absl::StrCat("write ", path));
    written += static_cast<std::size_t>(count);
  }
  return absl::OkStatus();
}

}  // namespace husk::sandbox
