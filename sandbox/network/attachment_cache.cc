#include "sandbox/network/attachment_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"
#include "sandbox/host/pod_id.h"
#include "sandbox/network/json.h"

namespace husk::sandbox {
namespace {

// A configuration and a result that were accepted, with what is put round them here.
constexpr std::size_t kMaximumDepth = 80;

Status WriteDurably(const std::string& path, const std::string& text) {
  const std::string unfinished = path + ".unfinished";
  const UniqueFd file(open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("create ", unfinished));
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t count = write(file.get(), text.data() + written, text.size() - written);
    if (count < 0 && errno != EINTR) return ErrnoStatus(errno, absl::StrCat("write ", unfinished));
    if (count > 0) written += static_cast<std::size_t>(count);
  }
  if (fsync(file.get()) != 0) return ErrnoStatus(errno, absl::StrCat("fsync ", unfinished));
  if (std::rename(unfinished.c_str(), path.c_str()) != 0)
    return ErrnoStatus(errno, absl::StrCat("rename ", unfinished));
  const UniqueFd directory(open(std::filesystem::path(path).parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || fsync(directory.get()) != 0) return ErrnoStatus(errno, absl::StrCat("fsync beside ", path));
  return absl::OkStatus();
}

StatusOr<CniAttachment> Parse(const std::string& text, const std::string& source) {
  HUSK_ASSIGN_OR_RETURN(const auto json, ParseJsonObject(text, kMaximumDepth));
  CniAttachment attachment;
  HUSK_ASSIGN_OR_RETURN(attachment.network,
                        ParseConfigList(WriteJson(ObjectMember(json, "network")), source, kMaximumDepth));
  attachment.network.source = StringMember(json, "source");
  attachment.container_id = StringMember(json, "containerId");
  attachment.namespace_path = StringMember(json, "netns");
  attachment.interface_name = StringMember(json, "ifName");
  attachment.arguments = StringMember(json, "args");
  attachment.capability_arguments = ObjectMember(json, "capabilityArgs");
  const nlohmann::json& result = ObjectMember(json, "result");
  if (!result.empty()) attachment.result = result;
  if (attachment.container_id.empty() || attachment.interface_name.empty()) {
    return absl::InvalidArgumentError("a member is missing");
  }
  return attachment;
}

}  // namespace

std::string AttachmentCache::PathOf(const std::string& pod_id) const {
  return absl::StrCat(directory_, "/", pod_id, ".json");
}

Status AttachmentCache::Save(const CniAttachment& attachment) const {
  std::error_code error;
  std::filesystem::create_directories(directory_, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("make ", directory_));
  const nlohmann::json json = {{"network", ToJson(attachment.network)},
                               {"source", attachment.network.source},
                               {"containerId", attachment.container_id},
                               {"netns", attachment.namespace_path},
                               {"ifName", attachment.interface_name},
                               {"args", attachment.arguments},
                               {"capabilityArgs", attachment.capability_arguments},
                               {"result", attachment.result}};
  return WriteDurably(PathOf(attachment.container_id), WriteJson(json));
}

StatusOr<CniAttachment> AttachmentCache::Load(const std::string& pod_id) const {
  const std::string path = PathOf(pod_id);
  HUSK_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  auto attachment = Parse(text, path);
  if (!attachment.ok()) return absl::DataLossError(absl::StrCat(path, ": ", attachment.status().message()));
  return attachment;
}

Status AttachmentCache::Remove(const std::string& pod_id) const {
  for (const char* suffix : {"", ".unfinished"}) {
    const std::string path = PathOf(pod_id) + suffix;
    if (unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus(errno, absl::StrCat("remove ", path));
  }
  return absl::OkStatus();
}

StatusOr<std::vector<std::string>> AttachmentCache::List() const {
  std::vector<std::string> ids;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory_, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string id = entry->path().stem().string();
    if (entry->path().extension() == ".json" && CheckPodId(id).ok()) ids.push_back(id);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return ErrnoStatus(error.value(), absl::StrCat("read ", directory_));
  }
  return ids;
}

}  // namespace husk::sandbox
