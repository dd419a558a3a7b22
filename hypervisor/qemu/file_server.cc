#include "hypervisor/qemu/file_server.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <climits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/launch.h"
#include "hypervisor/qemu/state_files.h"

namespace husk::hypervisor {
namespace {

constexpr std::size_t kLongestTag = 36;
constexpr char kPrefix[] = "share-";
constexpr char kProgram[] = "virtiofsd";
constexpr char kServerLog[] = "virtiofsd.log";
constexpr char kServerSocket[] = "server.sock";
constexpr char kSource[] = "source";

StatusOr<UniqueFd> OpenShare(int state_directory, const std::string& tag) {
  const std::string name = absl::StrCat(kPrefix, tag);
  UniqueFd directory(openat(state_directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!directory.valid()) return ErrnoStatus(errno, absl::StrCat("open ", name));
  return directory;
}

// The two ends of a connection, of which the listener's is not accepted yet. The socket's name is gone again.
struct Sockets {
  UniqueFd listener;
  UniqueFd connection;
};

StatusOr<Sockets> MakeSockets(const Context& context, int directory) {
  Sockets sockets;
  HUSK_ASSIGN_OR_RETURN(sockets.listener, ListenIn(directory, kServerSocket));
  HUSK_ASSIGN_OR_RETURN(sockets.connection, ConnectIn(context, directory, kServerSocket));
  if (unlinkat(directory, kServerSocket, 0) != 0) return ErrnoStatus(errno, "remove the file server's socket");
  return sockets;
}

std::vector<std::string> Command(const std::string& binary, int listener, bool immediate) {
  // cache=auto: what changes on the host shows in the guest within a second. With a timeout of 0 it shows at once, and
  // the guest keeps no name, so that a file that is gone on the host is not held open here.
  const std::string cache = immediate ? "cache=auto,timeout=0" : "cache=auto";
  return {binary, absl::StrCat("--fd=", listener), "-f",
          // The launcher has set the limit; raising it would take a right that the server does not have.
          "--rlimit-nofile=0", "-o", absl::StrCat("source=", launcher::kSharedRoot), "-o",
          // Locks stay among the pod's containers: this server would wait for one of the host's with its only thread.
          absl::StrCat("sandbox=namespace,", cache, ",xattr,announce_submounts,no_flock,no_posix_lock,log_level=warn")};
}

// virtiofsd serves from a child, which is the first process of a namespace.
std::optional<ProcessIdentity> WorkerOf(pid_t server) {
  const auto read_file = [](const std::string& path) {
    const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 1024> text{};
    const ssize_t count = file.valid() ? read(file.get(), text.data(), text.size()) : 0;
    return std::string(text.data(), count > 0 ? static_cast<std::size_t>(count) : 0);
  };
  const std::string children = read_file(absl::StrCat("/proc/", server, "/task/", server, "/children"));
  ProcessIdentity worker;
  const auto parsed = std::from_chars(children.data(), children.data() + children.size(), worker.pid);
  if (parsed.ec != std::errc()) return std::nullopt;
  const auto start_time = ParseStartTime(read_file(absl::StrCat("/proc/", worker.pid, "/stat")));
  if (!start_time.ok()) return std::nullopt;
  worker.start_time = *start_time;
  return worker;
}

Status KillServer(const Context& context, int directory) {
  const auto identity = ReadIdentity(directory);
  if (absl::IsNotFound(identity.status())) return absl::OkStatus();
  // A torn identity is that of a crash of the whole host.
  if (!identity.ok()) return absl::OkStatus();
  const auto server = OpenProcess(*identity);
  if (absl::IsNotFound(server.status())) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(server.status());
  // The server only waits for its worker; the other way round the worker would be asked to end, not made to.
  if (const auto worker = WorkerOf(identity->process.pid)) {
    const auto opened = OpenProcess(*worker);
    if (opened.ok()) HUSK_RETURN_IF_ERROR(KillProcess(context, *opened));
  }
  return KillProcess(context, *server);
}

}  // namespace

bool IsShareTag(const std::string& tag) {
  const auto good = [](unsigned char byte) { return std::isalnum(byte) != 0 || byte == '-' || byte == '_'; };
  return !tag.empty() && tag.size() <= kLongestTag && std::all_of(tag.begin(), tag.end(), good);
}

StatusOr<FileServer> StartFileServer(const Context& context, IoThread& io_thread, const FileServerOptions& options,
                                     const SharedDirectory& share, int state_directory) {
  if (options.runtime_files.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.virtiofsd_binary, ": there is no file server for shared directories on this host"));
  }
  const std::string name = absl::StrCat(kPrefix, share.tag);
  if (mkdirat(state_directory, name.c_str(), 0700) != 0) return ErrnoStatus(errno, absl::StrCat("mkdir ", name));
  HUSK_ASSIGN_OR_RETURN(const UniqueFd directory, OpenShare(state_directory, share.tag));
  if (symlinkat(share.path.c_str(), directory.get(), kSource) != 0) return ErrnoStatus(errno, "note the source");
  HUSK_ASSIGN_OR_RETURN(const UniqueFd log, CreateLog(directory.get(), kServerLog));
  HUSK_ASSIGN_OR_RETURN(auto sockets, MakeSockets(context, directory.get()));

  launcher::Plan plan{.new_network_namespace = true,
                      .binds = options.runtime_files,
                      .share_read_only = share.read_only,
                      .share_alone = share.alone};
  ChildDescriptors child;
  HUSK_ASSIGN_OR_RETURN(auto go, MakeGoSockets());
  plan.go = child.Add(go.theirs.get());
  plan.state_directory = child.Add(directory.get());
  plan.share = child.Add(share.directory.get());
  std::vector<UniqueFd> cgroups;
  for (const auto& path : share.cgroup_procs) {
    cgroups.emplace_back(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!cgroups.back().valid()) return ErrnoStatus(errno, absl::StrCat("cgroup ", path));
    plan.cgroup_procs.push_back(child.Add(cgroups.back().get()));
  }
  const int listener = child.Add(sockets.listener.get());
  plan.keep = {listener};
  plan.command = Command(options.virtiofsd_binary, listener, share.immediate);

  HUSK_ASSIGN_OR_RETURN(const pid_t pid,
                        Spawn(launcher::PlanArguments(options.launcher_binary, plan), child, log.get()));
  sockets.listener.Reset();  // the server's death is to break the connection
  HUSK_ASSIGN_OR_RETURN(auto launched, AwaitIdentity(context, pid, std::move(go), directory.get()));
  HUSK_ASSIGN_OR_RETURN(UniqueFd watched_log, OpenLog(directory.get(), kServerLog));
  FileServer server{.connection = std::move(sockets.connection)};
  HUSK_ASSIGN_OR_RETURN(server.process, VmProcess::Watch(io_thread, kProgram, launched.identity,
                                                         std::move(launched.pidfd), std::move(watched_log)));
  HUSK_RETURN_IF_ERROR(Go(launched));
  return server;
}

StatusOr<std::shared_ptr<VmProcess>> AdoptFileServer(IoThread& io_thread, int state_directory, const std::string& tag) {
  HUSK_ASSIGN_OR_RETURN(const UniqueFd directory, OpenShare(state_directory, tag));
  HUSK_ASSIGN_OR_RETURN(const auto identity, ReadIdentity(directory.get()));
  HUSK_ASSIGN_OR_RETURN(UniqueFd pidfd, OpenProcess(identity));
  HUSK_ASSIGN_OR_RETURN(UniqueFd log, OpenLog(directory.get(), kServerLog));
  return VmProcess::Watch(io_thread, kProgram, identity.process, std::move(pidfd), std::move(log));
}

StatusOr<pid_t> ServingProcess(const ProcessIdentity& server) {
  const auto worker = WorkerOf(server.pid);
  if (!worker) return absl::UnavailableError("the file server is not ready, or has ended");
  // The pid of a server that has ended may be another process's by now.
  HUSK_RETURN_IF_ERROR(OpenProcess(server).status());
  return worker->pid;
}

Status RemoveFileServer(const Context& context, int state_directory, const std::string& tag) {
  const auto directory = OpenShare(state_directory, tag);
  if (absl::IsNotFound(directory.status())) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(directory.status());
  HUSK_RETURN_IF_ERROR(KillServer(context, directory->get()));
  // The identity last: what was not removed can be found again.
  for (const char* name : {kServerSocket, kServerLog, kSource, "identity.new", "identity"}) {
    if (unlinkat(directory->get(), name, 0) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, absl::StrCat("remove ", name));
    }
  }
  if (unlinkat(state_directory, absl::StrCat(kPrefix, tag).c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, absl::StrCat("remove the directory of share ", tag));
  }
  return absl::OkStatus();
}

StatusOr<std::vector<std::string>> FileServerTags(int state_directory) {
  const int copy = openat(state_directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const directory = copy < 0 ? nullptr : fdopendir(copy);
  if (directory == nullptr) {
    const int error = errno;
    if (copy >= 0) close(copy);
    return ErrnoStatus(error, "list the state directory");
  }
  std::vector<std::string> tags;
  while (const dirent* const entry = readdir(directory)) {  // NOLINT(concurrency-mt-unsafe): this thread's own stream
    const std::string name = &entry->d_name[0];
    if (!absl::StartsWith(name, kPrefix)) continue;
    std::string tag = name.substr(sizeof kPrefix - 1);
    if (IsShareTag(tag)) tags.push_back(std::move(tag));
  }
  closedir(directory);
  return tags;
}

Status RemoveFileServers(const Context& context, int state_directory) {
  HUSK_ASSIGN_OR_RETURN(const auto tags, FileServerTags(state_directory));
  Status result;
  for (const auto& tag : tags) {
    result.Update(Annotate(RemoveFileServer(context, state_directory, tag), absl::StrCat("end the server of ", tag)));
  }
  return result;
}

std::string ServedPath(int state_directory, const std::string& tag) {
  std::array<char, PATH_MAX> path{};
  const std::string link = absl::StrCat(kPrefix, tag, "/", kSource);
  const ssize_t count = readlinkat(state_directory, link.c_str(), path.data(), path.size());
  return count <= 0 ? tag : std::string(path.data(), static_cast<std::size_t>(count));
}

}  // namespace husk::hypervisor
