#include "sandbox/cdi/inject.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "agent/common/printable.h"
#include "agent/common/unique_fd.h"
#include "sandbox/cdi/spec.h"

namespace husk::sandbox {
namespace {

constexpr std::size_t kMostFiles = 256;

std::string Shown(const std::string& path) {
  constexpr std::size_t kLongest = 300;
  return Printable(path, kLongest);
}

struct SpecFile {
  std::string path;
  CdiSpec spec;
};

StatusOr<std::string> ReadWhole(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.valid()) return ErrnoStatus(errno, "open");
  struct stat info{};
  if (fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return absl::InvalidArgumentError("is no regular file");
  // One byte more than is allowed shows that there is more.
  std::string text(kLongestCdiSpec + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t count = read(file.get(), text.data() + size, text.size() - size);
    if (count < 0) return ErrnoStatus(errno, "read");
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
  }
  text.resize(size);
  return text;
}

std::vector<std::string> SpecPaths(const std::string& directory, std::vector<std::string>& faults) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const auto extension = entry.path().extension();
    if (extension == ".json" || extension == ".yaml") paths.push_back(entry.path().string());
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    faults.push_back(absl::StrCat(directory, ": ", error.message()));
  }
  std::sort(paths.begin(), paths.end());
  if (paths.size() > kMostFiles) {
    faults.push_back(
        absl::StrCat(directory, ": has more than ", kMostFiles, " specifications; only the first were read"));
    paths.resize(kMostFiles);
  }
  return paths;
}

// What the directories have, the later ones first.
class Registry {
 public:
  explicit Registry(const std::vector<std::string>& directories) : directories_(directories) {
    for (auto directory = directories.rbegin(); directory != directories.rend(); ++directory) {
      std::vector<SpecFile>& files = by_directory_.emplace_back();
      for (const std::string& path : SpecPaths(*directory, faults_)) Load(path, files);
    }
  }

  StatusOr<const SpecFile*> Find(const CdiName& name) const {
    const std::string what = absl::StrCat("CDI device ", name.kind, "=", name.device, ": ");
    for (const std::vector<SpecFile>& files : by_directory_) {
      const SpecFile* found = nullptr;
      for (const SpecFile& file : files) {
        if (file.spec.kind != name.kind || !file.spec.devices.contains(name.device)) continue;
        if (found != nullptr) {
          return absl::FailedPreconditionError(
              absl::StrCat(what, "both ", Shown(found->path), " and ", Shown(file.path), " define it"));
        }
        found = &file;
      }
      if (found != nullptr) return found;
    }
    return absl::FailedPreconditionError(
        absl::StrCat(what, "no specification in ", absl::StrJoin(directories_, ", "), " defines it",
                     faults_.empty() ? "" : "; not usable: ", absl::StrJoin(faults_, "; ")));
  }

 private:
  void Load(const std::string& path, std::vector<SpecFile>& files) {
    const auto text = ReadWhole(path);
    auto spec = text.ok() ? ParseCdiSpec(*text) : text.status();
    if (spec.ok()) {
      files.push_back({.path = path, .spec = *std::move(spec)});
    } else {
      faults_.push_back(absl::StrCat(Shown(path), ": ", spec.status().message()));
    }
  }

  const std::vector<std::string>& directories_;
  std::vector<std::vector<SpecFile>> by_directory_;
  std::vector<std::string> faults_;
};

// Numbers that a specification gives are those of the host: the guest has others, and finds the device by itself.
Status CheckNumbers(const CdiDeviceNode& node) {
  if (node.type.empty() && !node.major && !node.minor) return absl::OkStatus();
  const std::string path = Shown(node.device.host_path);
  struct stat info{};
  if (stat(node.device.host_path.c_str(), &info) != 0) return ErrnoStatus(errno, absl::StrCat("device ", path));
  const bool block = S_ISBLK(info.st_mode);
  if (!node.type.empty() && block != (node.type == "b")) {
    return absl::FailedPreconditionError(absl::StrCat("device ", path, " is not of type ", node.type));
  }
  if (node.major.value_or(major(info.st_rdev)) != major(info.st_rdev) ||
      node.minor.value_or(minor(info.st_rdev)) != minor(info.st_rdev)) {
    return absl::FailedPreconditionError(absl::StrCat("device ", path, " is ", major(info.st_rdev), ":",
                                                      minor(info.st_rdev), ", not as the specification says"));
  }
  return absl::OkStatus();
}

Status Apply(const CdiEdits& edits, ContainerConfig& config) {
  if (!edits.refusals.empty()) return absl::UnimplementedError(edits.refusals.front());
  for (const auto& variable : edits.environment) config.environment.push_back(variable);
  for (const CdiDeviceNode& node : edits.devices) {
    HUSK_RETURN_IF_ERROR(CheckNumbers(node));
    // Two devices of one specification may bring the same node.
    const auto same = std::find_if(config.devices.begin(), config.devices.end(), [&](const ContainerDevice& device) {
      return device.container_path == node.device.container_path && device.host_path == node.device.host_path;
    });
    if (same != config.devices.end()) config.devices.erase(same);
    config.devices.push_back(node.device);
  }
  for (const ContainerMount& mount : edits.mounts) {
    const auto same = std::find_if(config.mounts.begin(), config.mounts.end(), [&](const ContainerMount& other) {
      return other.of_device && other.container_path == mount.container_path && other.host_path == mount.host_path;
    });
    if (same != config.mounts.end()) config.mounts.erase(same);
    config.mounts.push_back(mount);
  }
  for (const std::uint32_t gid : edits.additional_gids) config.security.user.supplemental_gids.push_back(gid);
  return absl::OkStatus();
}

}  // namespace

StatusOr<ContainerConfig> InjectCdiDevices(const std::vector<std::string>& directories, const ContainerConfig& config) {
  ContainerConfig result = config;
  if (config.cdi_devices.empty()) return result;
  const Registry registry(directories);
  std::set<std::string> applied;  // files whose own edits were
  std::set<std::string> injected;
  for (const std::string& name : config.cdi_devices) {
    if (!injected.insert(name).second) continue;
    HUSK_ASSIGN_OR_RETURN(const CdiName parsed, ParseCdiName(name));
    HUSK_ASSIGN_OR_RETURN(const SpecFile* const file, registry.Find(parsed));
    const std::string doing = absl::StrCat("CDI device ", name, " of ", Shown(file->path));
    if (applied.insert(file->path).second) HUSK_RETURN_IF_ERROR_DOING(Apply(file->spec.edits, result), doing);
    HUSK_RETURN_IF_ERROR_DOING(Apply(file->spec.devices.at(parsed.device), result), doing);
  }
  return result;
}

}  // namespace husk::sandbox
