#include "sandbox/host/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "agent/common/mount_table.h"
#include "agent/common/unique_fd.h"
#include "sandbox/host/pod_id.h"

namespace husk::sandbox {
namespace {

// A parent that another pod's removal took away between two of our steps is made again this often.
constexpr int kAttempts = 10;
constexpr std::uint64_t kDefaultPeriod = 100'000;  // microseconds, the kernel's own

struct Hierarchy {
  std::string mount_point;
  bool unified = false;
  bool cpuset = false;  // v1's: a group accepts nobody until its CPUs and memory nodes are set
};

// The controllers that may be asked of a v2 parent for its children.
constexpr absl::string_view kControllers[] = {"cpu", "cpuset", "io", "memory", "pids"};

StatusOr<std::vector<Hierarchy>> ReadHierarchies(const std::string& mount_table) {
  HUSK_ASSIGN_OR_RETURN(const auto mounts, ReadMountTable(mount_table));
  std::vector<Hierarchy> hierarchies;
  std::set<std::string> seen;  // the same hierarchy may be mounted at several places
  for (const Mount& mount : mounts) {
    const auto has = [&](absl::string_view option) {
      return std::find(mount.super_options.begin(), mount.super_options.end(), option) != mount.super_options.end();
    };
    if (mount.type == "cgroup2") {
      if (seen.insert("cgroup2").second) hierarchies.push_back({mount.mount_point, true, false});
    } else if (mount.type == "cgroup") {
      // A named hierarchy (systemd's) has no controller: nothing to limit or count there.
      const bool named = std::any_of(mount.super_options.begin(), mount.super_options.end(),
                                     [](const std::string& option) { return absl::StartsWith(option, "name="); });
      if (!named && seen.insert(absl::StrJoin(mount.super_options, ",")).second) {
        hierarchies.push_back({mount.mount_point, false, has("cpuset")});
      }
    }
  }
  if (hierarchies.empty()) return absl::FailedPreconditionError("no cgroup hierarchy is mounted");
  return hierarchies;
}

// "a-b.slice" lies in "a.slice" (systemd.slice(5)).
StatusOr<std::vector<std::string>> ExpandSlice(const std::string& slice) {
  if (slice == "-.slice") return std::vector<std::string>{};
  const absl::string_view name = absl::string_view(slice).substr(0, slice.size() - absl::string_view(".slice").size());
  std::vector<std::string> components;
  std::string prefix;
  for (const absl::string_view part : absl::StrSplit(name, '-')) {
    if (part.empty()) return absl::InvalidArgumentError(absl::StrCat("not a systemd slice: ", slice));
    absl::StrAppend(&prefix, prefix.empty() ? "" : "-", part);
    components.push_back(absl::StrCat(prefix, ".slice"));
  }
  return components;
}

StatusOr<std::vector<std::string>> Components(const std::string& parent) {
  if (absl::EndsWith(parent, ".slice") && !absl::StrContains(parent, '/')) return ExpandSlice(parent);
  std::vector<std::string> components;
  for (const absl::string_view part : absl::StrSplit(parent, '/', absl::SkipEmpty())) {
    if (part == "." || part == ".." || part.find(char{0}) != absl::string_view::npos || absl::StrContains(part, '\n')) {
      return absl::InvalidArgumentError(absl::StrCat("not a cgroup parent: ", parent));
    }
    components.emplace_back(part);
  }
  return components;
}

StatusOr<std::string> ReadText(const std::string& path) {
  std::ifstream file(path);
  if (!file) return ErrnoStatus(errno, absl::StrCat("open ", path));
  std::ostringstream text;
  text << file.rdbuf();
  return std::string(absl::StripAsciiWhitespace(text.str()));
}

Status WriteText(const std::string& path, absl::string_view text) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  if (write(file.get(), text.data(), text.size()) < 0) return ErrnoStatus(errno, absl::StrCat("write ", path));
  return absl::OkStatus();
}

Status InheritCpuset(const std::string& directory) {
  for (const char* name : {"/cpuset.cpus", "/cpuset.mems"}) {
    const auto own = ReadText(directory + name);
    if (absl::IsNotFound(own.status())) continue;
    HUSK_RETURN_IF_ERROR(own.status());
    if (!own->empty()) continue;
    HUSK_ASSIGN_OR_RETURN(const std::string value,
                          ReadText(std::filesystem::path(directory).parent_path().string() + name));
    HUSK_RETURN_IF_ERROR(WriteText(directory + name, value));
  }
  return absl::OkStatus();
}

// Best effort: a parent that holds processes of its own cannot hand out controllers (EBUSY), and the pod lives in its
// group without them.
void EnableControllers(const std::string& directory) {
  const auto available = ReadText(directory + "/cgroup.controllers");
  if (!available.ok()) return;
  for (const absl::string_view controller : absl::StrSplit(*available, ' ', absl::SkipEmpty())) {
    if (std::find(std::begin(kControllers), std::end(kControllers), controller) == std::end(kControllers)) continue;
    (void)WriteText(directory + "/cgroup.subtree_control", absl::StrCat("+", controller));
  }
}

Status MakeDirectories(const Hierarchy& hierarchy, const std::vector<std::string>& components) {
  std::string directory = hierarchy.mount_point;
  for (const std::string& component : components) {
    if (hierarchy.unified) EnableControllers(directory);
    absl::StrAppend(&directory, "/", component);
    if (mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
      return ErrnoStatus(errno, absl::StrCat("make cgroup ", directory));
    }
    if (hierarchy.cpuset) HUSK_RETURN_IF_ERROR_DOING(InheritCpuset(directory), "give the cgroup its CPUs");
  }
  return absl::OkStatus();
}

// Groups below a group must go before it.
std::vector<std::string> Children(const std::string& directory) {
  std::vector<std::string> children;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->is_directory(error)) children.push_back(entry->path().string());
  }
  return children;
}

std::string Processes(const std::string& directory) {
  const auto text = ReadText(directory + "/cgroup.procs");
  if (!text.ok() || text->empty()) return "";
  std::vector<std::string> pids = absl::StrSplit(*text, '\n');
  if (pids.size() > 10) pids.resize(10);
  return absl::StrCat(" (it holds the processes ", absl::StrJoin(pids, ", "), ")");
}

Status RemoveDirectory(const Context& context, const std::string& directory) {
  auto pause = std::chrono::milliseconds(2);
  while (true) {
    for (const std::string& child : Children(directory)) HUSK_RETURN_IF_ERROR(RemoveDirectory(context, child));
    if (rmdir(directory.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
    const std::string doing = absl::StrCat("remove cgroup ", directory, Processes(directory));
    if (errno != EBUSY) return ErrnoStatus(errno, doing);
    // A process that was killed leaves its group only when it is reaped or its memory is gone.
    HUSK_RETURN_IF_ERROR_DOING(SleepFor(context, pause), doing);
    pause = std::min(pause * 2, std::chrono::milliseconds(100));
  }
}

Status WriteLimit(const std::string& path, const std::string& value) {
  const Status written = WriteText(path, value);
  return absl::IsNotFound(written) ? absl::OkStatus() : written;
}

Status SetV1Limits(const std::string& directory, const HostLimits& limits) {
  Status first;
  const auto set = [&](const char* file, auto value) {
    first.Update(WriteLimit(directory + file, absl::StrCat(value)));
  };
  if (limits.memory_bytes > 0) set("/memory.limit_in_bytes", limits.memory_bytes);
  if (limits.cpu_shares > 0) set("/cpu.shares", limits.cpu_shares);
  if (limits.cpu_period > 0) set("/cpu.cfs_period_us", limits.cpu_period);
  if (limits.cpu_quota != 0) {
    Status written =
        WriteLimit(directory + "/cpu.cfs_quota_us", absl::StrCat(std::max<std::int64_t>(-1, limits.cpu_quota)));
    // The kernel's way to say that a cgroup above allows less, as the kubelet's of a pod without overhead does.
    if (absl::IsInvalidArgument(written)) written = WriteLimit(directory + "/cpu.cfs_quota_us", "-1");
    first.Update(written);
  }
  return first;
}

Status SetV2Limits(const std::string& directory, const HostLimits& limits) {
  Status first;
  if (limits.memory_bytes > 0) {
    first.Update(WriteLimit(directory + "/memory.max", absl::StrCat(limits.memory_bytes)));
  }
  if (limits.cpu_shares > 0) {
    // 2 to 262144 become 1 to 10000, as runc and crun do it.
    const std::uint64_t shares = std::clamp<std::uint64_t>(limits.cpu_shares, 2, 262144);
    first.Update(WriteLimit(directory + "/cpu.weight", absl::StrCat(1 + (shares - 2) * 9999 / 262142)));
  }
  if (limits.cpu_quota != 0) {
    const std::uint64_t period = limits.cpu_period > 0 ? limits.cpu_period : kDefaultPeriod;
    const std::string quota = limits.cpu_quota > 0 ? absl::StrCat(limits.cpu_quota) : "max";
    first.Update(WriteLimit(directory + "/cpu.max", absl::StrCat(quota, " ", period)));
  }
  return first;
}

// A group weighs as much as a single process beside it, unless told otherwise, however many pods are in it. See
// docs/adr/0125-husks-own-cgroup-weighs-a-node.md.
Status WeighAsTheNode(const std::string& directory, bool unified) {
  const auto cpus = static_cast<std::uint64_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  if (unified) return WriteLimit(directory + "/cpu.weight", absl::StrCat(std::min<std::uint64_t>(100 * cpus, 10'000)));
  return WriteLimit(directory + "/cpu.shares", absl::StrCat(std::min<std::uint64_t>(1024 * cpus, 262'144)));
}

// v1 says it in memory.oom_control, v2 in memory.events, by the same word.
std::uint64_t ReadOomKills(const std::string& path) {
  const auto text = ReadText(path);
  if (!text.ok()) return 0;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> words = absl::StrSplit(line, absl::MaxSplits(' ', 1));
    std::uint64_t count = 0;
    if (words.first == "oom_kill" && absl::SimpleAtoi(words.second, &count)) return count;
  }
  return 0;
}

// The number after the first of these names that a file of lines "name number" has.
std::optional<std::uint64_t> Named(const StatusOr<std::string>& text, std::initializer_list<absl::string_view> names) {
  if (!text.ok()) return std::nullopt;
  for (const absl::string_view name : names) {
    for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
      const std::pair<absl::string_view, absl::string_view> words = absl::StrSplit(line, absl::MaxSplits(' ', 1));
      std::uint64_t number = 0;
      if (words.first == name && absl::SimpleAtoi(words.second, &number)) return number;
    }
  }
  return std::nullopt;
}

std::optional<std::uint64_t> Number(const std::string& path) {
  const auto text = ReadText(path);
  std::uint64_t number = 0;
  if (!text.ok() || !absl::SimpleAtoi(*text, &number)) return std::nullopt;
  return number;
}

// Where v1 and v2 are both mounted, one of them may count nothing.
void KeepLarger(std::optional<std::uint64_t>& target, const std::optional<std::uint64_t>& value) {
  if (value) target = std::max(target.value_or(0), *value);
}

// v1 says a number near the largest where there is no limit, v2 "max".
void KeepLeast(const std::string& directory, bool unified, std::optional<MemoryCeiling>& least) {
  constexpr std::uint64_t kNone = std::uint64_t{1} << 62;
  const auto limit = Number(directory + (unified ? "/memory.max" : "/memory.limit_in_bytes"));
  if (limit && *limit < kNone && (!least || *limit < least->bytes)) least = MemoryCeiling{directory, *limit};
}

void ReadUsage(const std::string& directory, bool unified, HostUsage& usage) {
  if (unified) {
    const auto microseconds = Named(ReadText(directory + "/cpu.stat"), {"usage_usec"});
    if (microseconds) KeepLarger(usage.cpu_nanoseconds, *microseconds * 1000);
  } else {
    KeepLarger(usage.cpu_nanoseconds, Number(directory + "/cpuacct.usage"));
  }
  KeepLarger(usage.memory_bytes, Number(directory + (unified ? "/memory.current" : "/memory.usage_in_bytes")));
  // v1's names with total_ include the cgroups below.
  const auto memory = ReadText(directory + "/memory.stat");
  KeepLarger(usage.inactive_file_bytes, Named(memory, {"total_inactive_file", "inactive_file"}));
  KeepLarger(usage.anonymous_bytes, Named(memory, {"total_rss", "anon"}));
  KeepLarger(usage.page_faults, Named(memory, {"total_pgfault", "pgfault"}));
  KeepLarger(usage.major_page_faults, Named(memory, {"total_pgmajfault", "pgmajfault"}));
}

class Cgroups : public HostCgroups {
 public:
  Cgroups(std::string default_parent, std::string mount_table)
      : default_parent_(std::move(default_parent)), mount_table_(std::move(mount_table)) {}

  StatusOr<std::vector<std::string>> Create(const std::string& parent, const std::string& pod_id) override {
    HUSK_ASSIGN_OR_RETURN(const auto components, PodComponents(parent, pod_id));
    HUSK_ASSIGN_OR_RETURN(const auto hierarchies, ReadHierarchies(mount_table_));
    std::vector<std::string> files;
    for (const Hierarchy& hierarchy : hierarchies) {
      Status made;
      for (int attempt = 0; attempt < kAttempts; ++attempt) {
        made = MakeDirectories(hierarchy, components);
        if (!absl::IsNotFound(made)) break;
      }
      if (made.ok() && parent.empty()) made = WeighDefaultParent(hierarchy);
      if (!made.ok()) {
        (void)Remove(Context::Background().WithTimeout(std::chrono::seconds(1)), parent, pod_id);
        return made;
      }
      files.push_back(absl::StrCat(hierarchy.mount_point, "/", absl::StrJoin(components, "/"), "/cgroup.procs"));
    }
    return files;
  }

  Status SetLimits(const std::string& parent, const std::string& pod_id, const HostLimits& limits) override {
    HUSK_ASSIGN_OR_RETURN(const auto components, PodComponents(parent, pod_id));
    HUSK_ASSIGN_OR_RETURN(const auto hierarchies, ReadHierarchies(mount_table_));
    Status first;
    for (const Hierarchy& hierarchy : hierarchies) {
      const std::string directory = absl::StrCat(hierarchy.mount_point, "/", absl::StrJoin(components, "/"));
      first.Update(hierarchy.unified ? SetV2Limits(directory, limits) : SetV1Limits(directory, limits));
    }
    return first;
  }

  std::uint64_t OomKills(const std::string& parent, const std::string& pod_id) override {
    const auto components = PodComponents(parent, pod_id);
    const auto hierarchies = ReadHierarchies(mount_table_);
    if (!components.ok() || !hierarchies.ok()) return 0;
    std::uint64_t kills = 0;
    for (const Hierarchy& hierarchy : *hierarchies) {
      kills += ReadOomKills(absl::StrCat(hierarchy.mount_point, "/", absl::StrJoin(*components, "/"),
                                         hierarchy.unified ? "/memory.events" : "/memory.oom_control"));
    }
    return kills;
  }

  std::optional<MemoryCeiling> LeastMemoryAbove(const std::string& parent) override {
    std::optional<MemoryCeiling> least;
    const auto components = Components(parent.empty() ? default_parent_ : parent);
    const auto hierarchies = ReadHierarchies(mount_table_);
    if (!components.ok() || !hierarchies.ok()) return least;
    for (const Hierarchy& hierarchy : *hierarchies) {
      std::string directory = hierarchy.mount_point;
      for (const std::string& component : *components) {
        absl::StrAppend(&directory, "/", component);
        KeepLeast(directory, hierarchy.unified, least);
      }
    }
    return least;
  }

  HostUsage Usage(const std::string& parent, const std::string& pod_id) override {
    HostUsage usage;
    const auto components = PodComponents(parent, pod_id);
    const auto hierarchies = ReadHierarchies(mount_table_);
    if (!components.ok() || !hierarchies.ok()) return usage;
    for (const Hierarchy& hierarchy : *hierarchies) {
      ReadUsage(absl::StrCat(hierarchy.mount_point, "/", absl::StrJoin(*components, "/")), hierarchy.unified, usage);
    }
    return usage;
  }

  Status Remove(const Context& context, const std::string& parent, const std::string& pod_id) override {
    HUSK_ASSIGN_OR_RETURN(auto components, PodComponents(parent, pod_id));
    HUSK_ASSIGN_OR_RETURN(const auto hierarchies, ReadHierarchies(mount_table_));
    Status first;
    for (const Hierarchy& hierarchy : hierarchies) {
      first.Update(RemoveDirectory(context, absl::StrCat(hierarchy.mount_point, "/", absl::StrJoin(components, "/"))));
    }
    components.pop_back();
    if (parent.empty() && !components.empty()) {
      // Fails while another pod lies in it, which is what is wanted.
      for (const Hierarchy& hierarchy : hierarchies) {
        rmdir(absl::StrCat(hierarchy.mount_point, "/", absl::StrJoin(components, "/")).c_str());
      }
    }
    return first;
  }

 private:
  [[nodiscard]] Status WeighDefaultParent(const Hierarchy& hierarchy) const {
    HUSK_ASSIGN_OR_RETURN(const auto components, Components(default_parent_));
    if (components.empty()) return absl::OkStatus();  // the hierarchy's own root has no weight
    const std::string directory = absl::StrCat(hierarchy.mount_point, "/", absl::StrJoin(components, "/"));
    return Annotate(WeighAsTheNode(directory, hierarchy.unified), "give the pods' cgroup its weight");
  }

  [[nodiscard]] StatusOr<std::vector<std::string>> PodComponents(const std::string& parent,
                                                                 const std::string& pod_id) const {
    HUSK_RETURN_IF_ERROR(CheckPodId(pod_id));
    HUSK_ASSIGN_OR_RETURN(auto components, Components(parent.empty() ? default_parent_ : parent));
    components.push_back(absl::StrCat("husk-", pod_id));
    return components;
  }

  const std::string default_parent_;
  const std::string mount_table_;
};

}  // namespace

std::unique_ptr<HostCgroups> NewHostCgroups(const std::string& default_parent, const std::string& mount_table) {
  return std::make_unique<Cgroups>(default_parent, mount_table);
}

}  // namespace husk::sandbox
