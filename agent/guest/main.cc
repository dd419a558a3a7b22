// husk-agent: PID 1 of a pod's VM.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/common/status.h"
#include "agent/guest/children.h"
#include "agent/guest/container_roots.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/file_usage.h"
#include "agent/guest/files.h"
#include "agent/guest/init.h"
#include "agent/guest/pid_namespace.h"
#include "agent/guest/sandbox.h"
#include "agent/guest/service.h"
#include "agent/guest/volumes.h"

namespace husk::agent {
namespace {

constexpr const char* kPortName = "org.husk.agent";
constexpr const char* kModuleList = "/etc/husk/modules";
constexpr const char* kScratch = "/run/husk/scratch";
constexpr const char* kPodFiles = "/run/husk/pod";
constexpr const char* kVolumes = "/run/husk/volumes";
constexpr const char* kBundles = "/run/husk/bundles";
constexpr const char* kCrunState = "/run/husk/crun";
constexpr const char* kMeasureTrees = "--measure-trees";

Status RunAgent() {
  sigset_t mask;
  sigfillset(&mask);
  pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  HUSK_RETURN_IF_ERROR(SetUpGuest(kModuleList));
  for (const char* directory : {kScratch, kPodFiles, kVolumes, kBundles, kCrunState}) {
    HUSK_RETURN_IF_ERROR(MakeDirectories(directory, 0700));
  }
  HUSK_ASSIGN_OR_RETURN(const auto loop, EventLoop::Create());
  Children children(*loop);
  DiskContainerRoots roots(*loop, children, "/run/husk", kScratch);
  VirtualMachine guest(*loop, kPodFiles, kScratch);
  Volumes volumes(kVolumes, kScratch);
  HUSK_ASSIGN_OR_RETURN(UniqueFd port, OpenPort(kPortName));
  Service service(
      *loop, children, std::move(port),
      {.roots = &roots,
       .guest = &guest,
       .volumes = &volumes,
       .crun = "/usr/bin/crun",
       .crun_state = kCrunState,
       .places = {.bundles = kBundles,
                  .pod_files = kPodFiles,
                  .cgroup_root = "/sys/fs/cgroup",
                  .huge_pages = {.pools = "/sys/kernel/mm/hugepages", .compact = "/proc/sys/vm/compact_memory"}},
       .size = {.cpus = "/sys/devices/system/cpu",
                .online_policy = "/sys/module/memory_hotplug/parameters/online_policy"},
       .memory = {.cgroup = "/sys/fs/cgroup/husk", .meminfo = "/proc/meminfo"},
       .scratch = kScratch,
       .measure_command = {"/proc/self/exe", kMeasureTrees}});
  HUSK_RETURN_IF_ERROR(service.Start());
  loop->Run();
  return absl::InternalError("the event loop has ended");
}

int Main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--remove-tree") {
    const Status status = RemoveTree(argv[2]);
    if (!status.ok()) std::fprintf(stderr, "husk-agent: %s\n", status.ToString().c_str());
    return status.ok() ? 0 : 1;
  }
  if (argc == 2 && std::string_view(argv[1]) == kPodInitArgument) {
    std::fprintf(stderr, "husk-agent: the pod's first process: %s\n", RunPodInit().ToString().c_str());
    return 1;
  }
  if (argc >= 2 && std::string_view(argv[1]) == kMeasureTrees) {
    return MeasureTreesMain(std::vector<std::string>(argv + 2, argv + argc));
  }
  if (getpid() != 1) {
    std::fputs("husk-agent is the first process of a Husk guest; it does nothing elsewhere\n", stderr);
    return 2;
  }
  const Status status = RunAgent();
  std::fprintf(stderr, "husk-agent: %s\n", status.ToString().c_str());
  // The kernel panics when PID 1 ends, and the VM with it.
  return 1;
}

}  // namespace
}  // namespace husk::agent

int main(int argc, char** argv) {
  return husk::agent::Main(argc, argv);
}
