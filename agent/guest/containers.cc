#include "agent/guest/containers.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/guest/devices.h"
#include "agent/guest/files.h"
#include "agent/guest/ids.h"
#include "agent/guest/image_directory.h"
#include "agent/guest/oci_bundle.h"
#include "agent/guest/resources.h"
#include "agent/guest/retry.h"
#include "agent/guest/scsi_disk.h"
#include "agent/guest/user_lookup.h"

namespace husk::agent {
namespace {

constexpr auto kRemovalPatience = std::chrono::seconds(60);

}  // namespace

Status UnknownContainer(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("no container ", id));
}

std::int64_t NowNanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void MarkStarted(Process& process, pid_t pid) {
  process.starting = false;
  process.status.set_state(v1::RUNNING);
  process.status.set_pid(static_cast<std::uint32_t>(pid));
  process.status.set_started_at(NowNanoseconds());
}

void MarkFailed(Process& process, const Status& why) {
  process.starting = false;
  process.start_status = why;
  process.status.set_state(v1::EXITED);
  process.status.set_exit_code(128);
  std::string words(why.message());
  std::replace_if(words.begin(), words.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }, '?');
  process.status.set_start_error(words);
  process.status.set_finished_at(NowNanoseconds());
  process.io.Close();
}

void MarkExited(Process& process, int exit_code, OutOfMemory out_of_memory) {
  process.status.set_state(v1::EXITED);
  process.status.set_exit_code(exit_code);
  process.status.set_oom_killed(out_of_memory != OutOfMemory::kNone);
  process.status.set_guest_out_of_memory(out_of_memory == OutOfMemory::kGuest);
  process.status.set_finished_at(NowNanoseconds());
  process.io.standard_input().Close();
}

Containers::Containers(EventLoop& loop, Children& children, Crun& crun, ContainerRoots& roots, Volumes& volumes,
                       Places places, std::function<void()> changed)
    : loop_(loop),
      children_(children),
      crun_(crun),
      roots_(roots),
      volumes_(volumes),
      places_(std::move(places)),
      pod_processes_(children),
      huge_pages_(places_.huge_pages),
      changed_(std::move(changed)) {}

Containers::Container* Containers::FindContainer(const std::string& id) {
  const auto found = containers_.find(id);
  return found == containers_.end() ? nullptr : found->second.get();
}

std::string Containers::Cgroup(const std::string& id) const {
  return absl::StrCat(places_.cgroup_root, "/husk/", id);
}

std::string Containers::Bundle(const std::string& id) const {
  return absl::StrCat(places_.bundles, "/", id);
}

Process* Containers::Find(const std::string& container_id, const std::string& exec_id) {
  Container* const container = FindContainer(container_id);
  if (container == nullptr || container->creating) return nullptr;
  if (exec_id.empty()) return &container->process;
  const auto exec = container->execs.find(exec_id);
  return exec == container->execs.end() ? nullptr : &exec->second->process;
}

v1::ListProcessesResponse Containers::List() const {
  v1::ListProcessesResponse response;
  const auto add = [&response](const Process& process) {
    v1::ProcessStatus& status = *response.add_processes();
    status = process.status;
    status.set_stdout_offset(process.io.standard_output().buffer().acknowledged());
    status.set_stderr_offset(process.io.standard_error().buffer().acknowledged());
  };
  for (const auto& [id, container] : containers_) {
    if (container->creating) continue;
    add(container->process);
    for (const auto& [exec_id, exec] : container->execs) add(exec->process);
  }
  return response;
}

std::vector<std::string> Containers::Ids() const {
  std::vector<std::string> ids;
  for (const auto& [id, container] : containers_) {
    if (!container->creating) ids.push_back(id);
  }
  return ids;
}

void Containers::ForgetWriters() {
  for (const auto& [id, container] : containers_) {
    container->process.io.standard_input().ForgetWaiting();
    for (const auto& [exec_id, exec] : container->execs) exec->process.io.standard_input().ForgetWaiting();
  }
}

void Containers::Create(const v1::ContainerSpec& spec, const Done<v1::CreateContainerResponse>& done) {
  if (const Status valid = CheckId(spec.id()); !valid.ok()) return done(valid);
  const std::string& id = spec.id();
  const auto answer = [this, id, done](const Status& status) {
    if (!status.ok()) return done(status);
    done(FindContainer(id)->created);
  };
  if (Container* const present = FindContainer(id)) {
    if (present->removing) return done(absl::UnavailableError("the container is being removed"));
    if (present->spec != spec.SerializeAsString()) {
      return done(absl::AlreadyExistsError(absl::StrCat("container ", id, " exists with another specification")));
    }
    if (!present->creating) return done(present->created);
    present->create_waiters.Add(answer);
    return;
  }
  if (containers_.size() >= kMaximumContainers) return done(absl::ResourceExhaustedError("too many containers"));
  auto container = std::make_unique<Container>(loop_, changed_);
  container->id = id;
  container->spec = spec.SerializeAsString();
  container->terminal = spec.tty();
  container->with_stdin = spec.stdin();
  container->process.status.set_container_id(id);
  container->process.status.set_state(v1::CREATED);
  container->create_waiters.Add(answer);
  containers_[id] = std::move(container);
  std::set<std::uint32_t> volume_luns;
  for (const v1::ImageMount& mount : spec.image_mounts()) volume_luns.insert(mount.lun());
  roots_.Prepare(id, spec.image_lun(), volume_luns, [this, id, spec](const StatusOr<std::string>& root) {
    if (!root.ok()) return Created(id, root.status());
    const auto end = [this, id](const Status& status) {
      if (status.ok()) return Created(id, status);
      roots_.Release(id, [this, id, status](const Status&) { Created(id, status); });
    };
    AwaitDisks(spec, [this, id, spec, end, path = *root](Status status) {
      if (status.ok()) status = WriteBundle(*FindContainer(id), spec, path);
      if (!status.ok()) return end(status);
      ReserveHugePages(id, FindContainer(id)->config, end);
    });
  });
}

void Containers::AwaitDisks(const v1::ContainerSpec& spec, std::function<void(Status)> done) {
  std::vector<std::uint32_t> luns;
  for (const v1::Device& device : spec.devices()) {
    if (device.has_lun()) luns.push_back(device.lun());
  }
  Retry(
      loop_, kDiskPatience,
      [luns] {
        for (const std::uint32_t lun : luns) HUSK_RETURN_IF_ERROR(FindScsiDisk(lun).status());
        return absl::OkStatus();
      },
      std::move(done));
}

Status Containers::FindMounts(const v1::ContainerSpec& spec, BundleFacts& facts) {
  for (const v1::VolumeMount& mount : spec.volume_mounts()) {
    HUSK_ASSIGN_OR_RETURN(std::string source, volumes_.MountSource(mount));
    BundleFacts::Bind bind{
        .source = std::move(source), .destination = mount.destination(), .read_only = mount.read_only(), .flags = {}};
    for (const std::string& flag : mount.flags()) {
      if (flag != "nosuid" && flag != "nodev" && flag != "noexec") {
        return absl::InvalidArgumentError(absl::StrCat("mount ", mount.destination(), ": no flag \"", flag, "\""));
      }
      bind.flags.push_back(flag);
    }
    facts.volumes.push_back(std::move(bind));
  }
  for (const v1::ImageMount& mount : spec.image_mounts()) {
    HUSK_ASSIGN_OR_RETURN(std::string source, FindImageDirectory(roots_.ImagePath(mount.lun()), mount.sub_path()));
    // Kubernetes: files of an image volume are data.
    facts.volumes.push_back({.source = std::move(source),
                             .destination = mount.destination(),
                             .read_only = true,
                             .flags = {"nosuid", "nodev", "noexec"}});
  }
  return absl::OkStatus();
}

StatusOr<std::string> Containers::JoinedPidNamespace(Container& container, const v1::ContainerSpec& spec) {
  if (spec.pod_pid_namespace()) return pod_processes_.Path();
  const std::string& id = spec.target_container_id();
  if (id.empty()) return std::string();
  const Container* const target = FindContainer(id);
  if (target == nullptr) return absl::FailedPreconditionError(absl::StrCat("there is no target container ", id));
  if (!target->process.running()) {
    return absl::FailedPreconditionError(absl::StrCat("the target container ", id, " does not run"));
  }
  // It has not been reaped, so the number is still its own.
  HUSK_ASSIGN_OR_RETURN(container.target, PidNamespace::Of(static_cast<pid_t>(target->process.status.pid())));
  return container.target->path();
}

Status Containers::WriteBundle(Container& container, const v1::ContainerSpec& spec, const std::string& root) {
  BundleFacts facts;
  facts.root_path = root;
  facts.readonly_root = spec.readonly_root();
  facts.terminal = spec.tty();
  facts.cgroups_path = absl::StrCat("/husk/", spec.id());
  facts.pod_files = places_.pod_files;
  HUSK_ASSIGN_OR_RETURN(facts.pid_namespace, JoinedPidNamespace(container, spec));
  HUSK_RETURN_IF_ERROR(FindMounts(spec, facts));
  for (const v1::Device& device : spec.devices()) {
    HUSK_ASSIGN_OR_RETURN(facts.devices.emplace_back(), FindDevice(device));
  }
  HUSK_ASSIGN_OR_RETURN(facts.user, ResolveUserIn(root, spec.user()));
  HUSK_ASSIGN_OR_RETURN(const std::string complete, CompleteConfig(spec.oci_config_json(), facts));
  HUSK_ASSIGN_OR_RETURN(container.config, FitConfig(complete, Topology()));
  container.created.set_uid(facts.user.uid);
  container.created.set_gid(facts.user.gid);
  for (const std::uint32_t gid : facts.user.additional_gids) container.created.add_supplemental_gids(gid);
  HUSK_RETURN_IF_ERROR(MakeDirectories(Bundle(spec.id()), 0700));
  return CreateFile(Bundle(spec.id()) + "/config.json", container.config, 0600);
}

void Containers::Created(const std::string& id, const Status& status) {
  const auto found = containers_.find(id);
  if (status.ok()) {
    found->second->creating = false;
    found->second->create_waiters.Answer(status);
    ContinueRemoval(id);
    return;
  }
  const std::unique_ptr<Container> failed = std::move(found->second);
  containers_.erase(found);
  RemoveTree(Bundle(id)).IgnoreError();
  failed->create_waiters.Answer(status);
  failed->remove_waiters.Answer(absl::OkStatus());
}

void Containers::Start(const std::string& id, const Done<v1::StartContainerResponse>& done) {
  Container* const container = FindContainer(id);
  if (container == nullptr || container->creating) return done(UnknownContainer(id));
  Process& process = container->process;
  const auto answer = [this, id, done](const Status& status) {
    if (!status.ok()) return done(status);
    const Container* const started = FindContainer(id);
    v1::StartContainerResponse response;
    response.set_pid(started->process.status.pid());
    response.set_started_at(started->process.status.started_at());
    done(std::move(response));
  };
  if (process.running() || process.exited()) return answer(process.start_status);
  if (container->removing) return done(absl::FailedPreconditionError("the container is being removed"));
  process.start_waiters.Add(answer);
  if (process.starting) return;
  process.starting = true;
  ProcessIo::ChildEnds ends;
  if (!container->terminal) {
    auto pipes = process.io.OpenPipes(container->with_stdin);
    if (!pipes.ok()) return Started(id, pipes.status());
    ends = *std::move(pipes);
  }
  crun_.Run(id, Bundle(id), container->terminal, std::move(ends),
            [this, id](StatusOr<Crun::Started> started) { Started(id, std::move(started)); });
}

void Containers::Started(const std::string& id, StatusOr<Crun::Started> started) {
  Container& container = *FindContainer(id);
  Status status = started.status();
  if (started.ok() && container.terminal) {
    status = container.process.io.OpenTerminal(std::move(started->terminal), container.with_stdin);
    if (!status.ok()) kill(started->pid, SIGKILL);
  }
  if (!status.ok()) {
    huge_pages_.Release(id);
    MarkFailed(container.process, absl::FailedPreconditionError(status.message()));
  } else {
    MarkStarted(container.process, started->pid);
  }
  // Answered before the exit, which may have happened already, is told.
  container.process.start_waiters.Answer(container.process.start_status);
  if (status.ok()) children_.Await(started->pid, [this, id](int exit_code) { Exited(id, exit_code); });
  changed_();
  ContinueRemoval(id);
}

void Containers::Exited(const std::string& id, int exit_code) {
  Container& container = *FindContainer(id);
  // Without a PID namespace of its own the rest would live on.
  SignalCgroup(Cgroup(id), SIGKILL, /*leader=*/0);
  huge_pages_.Release(id);
  // Also if the killer took only a child, and the first process went on and ended well: as containerd tells it.
  MarkExited(container.process, exit_code, CgroupOutOfMemory(Cgroup(id)));
  changed_();
  ContinueRemoval(id);
}

void Containers::Signal(const v1::SignalContainerRequest& request, const Done<v1::SignalContainerResponse>& done) {
  Container* const container = FindContainer(request.container_id());
  if (container == nullptr) return done(UnknownContainer(request.container_id()));
  if (request.signal() < 1 || request.signal() > 64) return done(absl::InvalidArgumentError("no such signal"));
  Process& process = container->process;
  if (process.starting) {
    process.start_waiters.Add([this, request, done](const Status&) { Signal(request, done); });
    return;
  }
  if (process.exited()) return done(v1::SignalContainerResponse());
  if (!process.running()) return done(absl::FailedPreconditionError("the container has not been started"));
  const int signal = static_cast<int>(request.signal());
  // It has not been reaped, so the number is still its own.
  const auto leader = static_cast<pid_t>(process.status.pid());
  if (request.all_processes()) {
    SignalCgroup(Cgroup(container->id), signal, leader);
  } else {
    kill(leader, signal);
  }
  done(v1::SignalContainerResponse());
}

void Containers::Remove(const std::string& id, const Done<v1::RemoveContainerResponse>& done) {
  Container* const container = FindContainer(id);
  if (container == nullptr) return done(v1::RemoveContainerResponse());
  container->remove_waiters.Add([done](const Status& status) {
    if (!status.ok()) return done(status);
    done(v1::RemoveContainerResponse());
  });
  if (container->removing) return;
  container->removing = true;
  container->removal_timer = loop_.After(kRemovalPatience, [this, id] {
    Container* const slow = FindContainer(id);
    if (slow == nullptr || !slow->removing) return;
    slow->remove_waiters.Answer(absl::DeadlineExceededError("the container's processes do not end"));
  });
  ContinueRemoval(id);
}

void Containers::ContinueRemoval(const std::string& id) {
  Container* const found = FindContainer(id);
  if (found == nullptr) return;
  Container& container = *found;
  if (!container.removing || container.creating || container.process.starting || container.deleting) return;
  bool waits = false;
  if (container.process.running()) {
    SignalCgroup(Cgroup(id), SIGKILL, static_cast<pid_t>(container.process.status.pid()));
    waits = true;
  }
  for (const auto& [exec_id, exec] : container.execs) {
    if (exec->process.running()) KillExec(id, *exec, SIGKILL);
    waits = waits || exec->process.starting || exec->process.running();
  }
  if (waits) return;
  container.deleting = true;
  Delete(id);
}

void Containers::Delete(const std::string& id) {
  crun_.Delete(id, [this, id](const Status& deleted) {
    if (!deleted.ok()) return Removed(id, Annotate(deleted, "crun delete"));
    roots_.Release(id, [this, id](const Status& released) { Removed(id, released); });
  });
}

void Containers::Removed(const std::string& id, const Status& status) {
  const auto found = containers_.find(id);
  loop_.Cancel(found->second->removal_timer);
  if (!status.ok()) {
    // A repetition tries again.
    found->second->removing = false;
    found->second->deleting = false;
    found->second->remove_waiters.Answer(status);
    return;
  }
  const std::unique_ptr<Container> removed = std::move(found->second);
  containers_.erase(found);
  huge_pages_.Release(id);
  RemoveTree(Bundle(id)).IgnoreError();
  removed->remove_waiters.Answer(absl::OkStatus());
  for (const auto& [exec_id, exec] : removed->execs) exec->remove_waiters.Answer(absl::OkStatus());
  changed_();
}

}  // namespace husk::agent
