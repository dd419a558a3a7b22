// The containers of the pod and their execs: every call of agent.proto that is about them but Poll.
#ifndef HUSK_AGENT_GUEST_CONTAINERS_H_
#define HUSK_AGENT_GUEST_CONTAINERS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "agent/guest/cgroup.h"
#include "agent/guest/container_roots.h"
#include "agent/guest/crun.h"
#include "agent/guest/huge_pages.h"
#include "agent/guest/oci_bundle.h"
#include "agent/guest/pid_namespace.h"
#include "agent/guest/process.h"
#include "agent/guest/resources.h"
#include "agent/guest/volumes.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// Not thread safe. Nothing blocks: `done` is called when it is done, perhaps before the call returns.
class Containers {
 public:
  template <typename Response>
  using Done = std::function<void(StatusOr<Response>)>;

  struct Places {
    std::string bundles;      // a directory for configurations
    std::string pod_files;    // resolv.conf, hosts, hostname, shm
    std::string cgroup_root;  // where cgroup v2 is mounted
    HugePages::Places huge_pages = {};
  };

  static constexpr std::size_t kMaximumContainers = 256;
  static constexpr std::size_t kMaximumExecs = 256;  // of one container

  // `changed` is called whenever a Poll may have something to tell.
  Containers(EventLoop& loop, Children& children, Crun& crun, ContainerRoots& roots, Volumes& volumes, Places places,
             std::function<void()> changed);

  void Create(const v1::ContainerSpec& spec, const Done<v1::CreateContainerResponse>& done);
  void Start(const std::string& id, const Done<v1::StartContainerResponse>& done);
  void Signal(const v1::SignalContainerRequest& request, const Done<v1::SignalContainerResponse>& done);
  void UpdateResources(const v1::UpdateResourcesRequest& request, const Done<v1::UpdateResourcesResponse>& done);
  void Remove(const std::string& id, const Done<v1::RemoveContainerResponse>& done);

  void Exec(const v1::ExecRequest& request, const Done<v1::ExecResponse>& done);
  void SignalExec(const v1::SignalExecRequest& request, const Done<v1::SignalExecResponse>& done);
  void RemoveExec(const v1::RemoveExecRequest& request, const Done<v1::RemoveExecResponse>& done);

  // Nullptr if unknown. An empty exec_id means the container's first process.
  Process* Find(const std::string& container_id, const std::string& exec_id);
  [[nodiscard]] v1::ListProcessesResponse List() const;
  // Of those that are made.
  [[nodiscard]] std::vector<std::string> Ids() const;
  // The directory of its cgroup, which is there once it has been started.
  [[nodiscard]] std::string Cgroup(const std::string& id) const;
  // The connection is gone: nobody waits for stdin to be taken any more.
  void ForgetWriters();

 private:
  struct ExecState {
    ExecState(EventLoop& loop, const std::function<void()>& changed) : process(loop, changed) {}
    std::string cgroup;  // its name below the container's
    Process process;
    bool removing = false;
    Waiters remove_waiters;
  };
  struct Container {
    Container(EventLoop& loop, const std::function<void()>& changed) : process(loop, changed) {}
    std::string id;
    std::string spec;  // as sent, to know a repetition
    bool terminal = false;
    bool with_stdin = false;
    bool creating = true;
    std::string config;                  // complete config.json
    bool half_changed = false;           // a change failed, and its cgroup may have some of it
    std::optional<PidNamespace> target;  // that of the container which this one looks into
    v1::CreateContainerResponse created;
    Waiters create_waiters;
    Process process;
    std::map<std::string, std::unique_ptr<ExecState>> execs;
    bool removing = false;
    bool deleting = false;  // the last steps of the removal run
    EventLoop::TimerId removal_timer;
    Waiters remove_waiters;
  };

  Container* FindContainer(const std::string& id);
  ExecState* FindExec(const std::string& container_id, const std::string& exec_id);
  // Where an exec's processes are: they stay together there when the first of them has ended.
  [[nodiscard]] std::string ExecCgroup(const std::string& container_id, const ExecState& exec) const;
  [[nodiscard]] std::string Bundle(const std::string& id) const;

  // Until the guest shows the disks that are the container's devices.
  void AwaitDisks(const v1::ContainerSpec& spec, std::function<void(Status)> done);
  Status FindMounts(const v1::ContainerSpec& spec, BundleFacts& facts);
  // The path of the PID namespace that it joins; empty if it has its own.
  StatusOr<std::string> JoinedPidNamespace(Container& container, const v1::ContainerSpec& spec);
  Status WriteBundle(Container& container, const v1::ContainerSpec& spec, const std::string& root);
  [[nodiscard]] GuestTopology Topology() const;
  // Those that this configuration of the container names. Memory that was just plugged in comes a moment later.
  void ReserveHugePages(const std::string& id, const std::string& config, std::function<void(Status)> done);
  // A change, when its huge pages are there.
  void ApplyResources(const std::string& id, const std::string& resources, const std::string& config,
                      const Done<v1::UpdateResourcesResponse>& done);
  void Created(const std::string& id, const Status& status);
  void Started(const std::string& id, StatusOr<Crun::Started> started);
  void Exited(const std::string& id, int exit_code);
  // Goes on with the removal if one is under way and nothing has to be waited for.
  void ContinueRemoval(const std::string& id);
  void Delete(const std::string& id);
  void Removed(const std::string& id, const Status& status);

  void ExecStarted(const std::string& container_id, const std::string& exec_id, StatusOr<Crun::Started> started);
  void ExecExited(const std::string& container_id, const std::string& exec_id, int exit_code);
  void KillExec(const std::string& container_id, ExecState& exec, int signal);
  void FinishExecRemoval(const std::string& container_id, const std::string& exec_id);

  EventLoop& loop_;
  Children& children_;
  Crun& crun_;
  ContainerRoots& roots_;
  Volumes& volumes_;
  const Places places_;
  PodPidNamespace pod_processes_;
  HugePages huge_pages_;
  const std::function<void()> changed_;
  std::map<std::string, std::unique_ptr<Container>> containers_;
  std::uint64_t execs_ = 0;  // numbers their cgroups
};

// Shared by the two kinds of process: what follows the end of the start, and of the process. Nanoseconds since 1970.
std::int64_t NowNanoseconds();
// NOT_FOUND.
Status UnknownContainer(const std::string& id);
void MarkStarted(Process& process, pid_t pid);
void MarkFailed(Process& process, const Status& why);
void MarkExited(Process& process, int exit_code, OutOfMemory out_of_memory);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_CONTAINERS_H_
