#include <chrono>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/fault_point.h"
#include "agent/common/printable.h"
#include "agent/common/rollback.h"
#include "sandbox/logging.h"
#include "sandbox/network/bandwidth.h"
#include "sandbox/pod_operations.h"
#include "sandbox/vm_size.h"

namespace husk::sandbox {
namespace {

constexpr auto kUndoTimeout = std::chrono::seconds(30);
// docs/configuration.md: the guest's kernel, and QEMU when it emulates.
constexpr char kRecommendedOverhead[] = "450Mi";
constexpr std::size_t kConsoleBytes = 1500;  // of the guest's console that an error message carries

// One call of RunPod on its way through the steps.
class Making {
 public:
  Making(Environment& environment, const Context& context, Pod& pod, Rollback& rollback)
      : environment_(environment),
        options_(OptionsFor(environment.options, pod.config().vm_choices)),
        context_(context),
        pod_(pod),
        rollback_(rollback) {}

  Status Run() {
    HUSK_RETURN_IF_ERROR(MakeDirectories());
    HUSK_RETURN_IF_ERROR(Timed(BootStep::kNetwork, &Making::MakeNetwork));
    HUSK_RETURN_IF_ERROR(Timed(BootStep::kCgroup, &Making::MakeCgroup));
    HUSK_RETURN_IF_ERROR(Timed(BootStep::kDisk, &Making::MakeScratchDisk));
    HUSK_RETURN_IF_ERROR(Timed(BootStep::kTurn, &Making::AwaitTurn));
    HUSK_RETURN_IF_ERROR(WithLackOfMemory(Boot()));
    HUSK_RETURN_IF_ERROR(environment_.store->SetPodReady(pod_.id(), guest_boot_id_));
    FaultPoint("run_pod.ready_recorded");
    StartPodMonitor(environment_, pod_);
    return pod_.SetReady();
  }

 private:
  Status Boot() {
    HUSK_RETURN_IF_ERROR(Timed(BootStep::kVm, &Making::StartVm));
    HUSK_RETURN_IF_ERROR(Timed(BootStep::kAgent, &Making::AwaitAgent));
    return Timed(BootStep::kConfigure, &Making::ConfigureGuest);
  }

  Status Timed(BootStep step, Status (Making::*make)()) {
    const auto begin = Context::Clock::now();
    Status made = (this->*make)();
    environment_.parts.observer->OnBootStep(step, Context::Clock::now() - begin, made.ok());
    return made;
  }

  Status MakeDirectories() {
    const std::string root = environment_.paths.pod_root(pod_.id());
    const std::string state = environment_.paths.vm_state(pod_.id());
    rollback_.Add("remove its directories", [root, state](const Context&) {
      Status status = RemoveTree(state);
      status.Update(RemoveTree(root));
      return status;
    });
    HUSK_RETURN_IF_ERROR(MakePrivateDirectory(root));
    HUSK_RETURN_IF_ERROR(MakePrivateDirectory(state));
    if (pod_.config().log_directory.empty()) return absl::OkStatus();
    // The kubelet's, and usually there; it stays when the pod goes.
    std::error_code error;
    std::filesystem::create_directories(pod_.config().log_directory, error);
    return error ? ErrnoStatus(error.value(), absl::StrCat("make log_directory ", pod_.config().log_directory))
                 : absl::OkStatus();
  }

  Status MakeNetwork() {
    Network* network = environment_.parts.network;
    rollback_.Add("remove its network namespace",
                  [network, id = pod_.id()](const Context& context) { return network->RemoveNamespace(context, id); });
    HUSK_RETURN_IF_ERROR_DOING(network->CreateNamespace(context_, pod_.id()), "make the network namespace");
    FaultPoint("run_pod.netns_created");

    rollback_.Add("detach its network", [network, request = pod_.network_request()](const Context& context) {
      return network->Detach(context, request);
    });
    HUSK_ASSIGN_OR_RETURN_DOING(NetworkResult result, network->Attach(context_, pod_.network_request()),
                                "attach the network");
    HUSK_RETURN_IF_ERROR(environment_.store->SetPodNetwork(pod_.id(), result));
    FaultPoint("run_pod.cni_added");

    for (const NetworkInterface& interface : result.interfaces) {
      // The tap goes with its descriptor.
      HUSK_ASSIGN_OR_RETURN_DOING(UniqueFd tap, network->CreateTap(context_, pod_.id(), interface),
                                  absl::StrCat("make the tap of ", interface.name));
      network_devices_.push_back({.tap = std::move(tap), .mac_address = interface.mac_address});
    }
    pod_.SetNetwork(std::move(result));
    FaultPoint("run_pod.tap_created");
    return absl::OkStatus();
  }

  Status MakeCgroup() {
    HostCgroups* cgroups = environment_.parts.cgroups;
    const std::string& parent = pod_.config().cgroup_parent;
    rollback_.Add("remove its cgroup", [cgroups, parent, id = pod_.id()](const Context& context) {
      return cgroups->Remove(context, parent, id);
    });
    HUSK_ASSIGN_OR_RETURN_DOING(cgroup_procs_, cgroups->Create(parent, pod_.id()), "make the cgroup");
    const PodConfig& config = pod_.config();
    const VmSize size = SizeVm(options_, config.resources, config.overhead);
    limits_ = LimitsOnHost(size.memory_bytes, config.resources, config.overhead);
    SetLimits(LimitsWhileBooting(limits_));
    FaultPoint("run_pod.cgroup_created");
    return absl::OkStatus();
  }

  // Best effort: the cgroup above it is the kubelet's, and limits the pod too.
  void SetLimits(const HostLimits& limits) {
    const Status limited = environment_.parts.cgroups->SetLimits(pod_.config().cgroup_parent, pod_.id(), limits);
    if (!limited.ok()) spdlog::warn("pod={} limit its cgroup: {}", pod_.id(), Words(limited));
  }

  Status MakeScratchDisk() {
    HUSK_RETURN_IF_ERROR_DOING(
        environment_.scratch_disks->Create(context_, environment_.paths.scratch(pod_.id()), options_.scratch_bytes),
        "make the scratch disk");
    FaultPoint("run_pod.scratch_created");
    return absl::OkStatus();
  }

  Status AwaitTurn() {
    HUSK_ASSIGN_OR_RETURN_DOING(boot_, environment_.boots->Take(context_), "wait for other VMs to boot");
    return absl::OkStatus();
  }

  Status StartVm() {
    const VmSize size = SizeVm(options_, pod_.config().resources, pod_.config().overhead);
    hypervisor::VmConfig config{
        .id = pod_.id(),
        .vcpus = size.vcpus,
        .maximum_vcpus = size.maximum_vcpus,
        .memory_bytes = size.memory_bytes,
        .maximum_memory_bytes = size.maximum_memory_bytes,
        .user = pod_.user(),
        .group = pod_.user(),
        .state_directory = environment_.paths.vm_state(pod_.id()),
        .cgroup_procs = cgroup_procs_,
        .network_namespace = environment_.parts.network->NamespacePath(pod_.id()),
        .network_devices = std::move(network_devices_),
        .scratch = {.extents = {{.path = environment_.paths.scratch(pod_.id()), .length = options_.scratch_bytes}},
                    .read_only = false}};
    hypervisor::Hypervisor* hypervisor = environment_.parts.hypervisor;
    rollback_.Add("end its VM", [hypervisor, &pod = pod_, state = config.state_directory](const Context& context) {
      pod.RequestStop();  // its end is no news
      pod.LetGo();
      return hypervisor->Destroy(context, state);
    });
    HUSK_ASSIGN_OR_RETURN_DOING(std::unique_ptr<hypervisor::Vm> vm, hypervisor->Start(context_, std::move(config)),
                                "start the VM");
    TakeVm(environment_, context_, pod_, std::move(vm));
    pod_.SetOnlineVcpus(size.vcpus);
    FaultPoint("run_pod.vm_started");
    return absl::OkStatus();
  }

  Status AwaitAgent() {
    const auto hello = pod_.client()->Hello(context_);
    if (!hello.ok()) return WithConsole(Annotate(hello.status(), "wait for the guest's agent"));
    if (hello->protocol_version() != 1) {
      return absl::FailedPreconditionError(
          absl::StrCat("the guest's agent speaks protocol version ", hello->protocol_version(), ", not 1"));
    }
    boot_.Release();
    // Before the pod is recorded as READY: a huskd that dies earlier leaves one that the next removes.
    SetLimits(limits_);
    guest_boot_id_ = hello->guest_boot_id();
    FaultPoint("run_pod.agent_ready");
    return absl::OkStatus();
  }

  Status ConfigureGuest() {
    const PodConfig& config = pod_.config();
    const NetworkResult network = pod_.network();
    agent::v1::ConfigureSandboxRequest request;
    agent::v1::SandboxConfig& sandbox = *request.mutable_config();
    sandbox.set_hostname(config.hostname);
    for (const NetworkInterface& interface : network.interfaces) {
      agent::v1::Interface& added = *sandbox.add_interfaces();
      added.set_name(interface.name);
      added.set_mac_address(interface.mac_address);
      added.set_mtu(interface.mtu);
      for (const std::string& address : interface.addresses) added.add_addresses(address);
      for (const NetworkRoute& route : interface.routes) {
        agent::v1::Route& path = *added.add_routes();
        path.set_destination(route.destination);
        path.set_gateway(route.gateway);
        path.set_metric(route.metric);
        path.set_source(route.source);
      }
      for (const NetworkNeighbour& neighbour : interface.neighbours) {
        agent::v1::Neighbour& entry = *added.add_neighbours();
        entry.set_address(neighbour.address);
        entry.set_mac_address(neighbour.mac_address);
      }
    }
    // The kubelet's word on DNS counts; only without one does CNI's.
    const DnsConfig& asked = config.dns;
    const bool none = asked.servers.empty() && asked.searches.empty() && asked.options.empty();
    for (const auto& server : none ? network.dns_servers : asked.servers) sandbox.add_dns_servers(server);
    for (const auto& search : none ? network.dns_searches : asked.searches) sandbox.add_dns_searches(search);
    for (const auto& option : none ? network.dns_options : asked.options) sandbox.add_dns_options(option);
    for (const auto& [name, value] : config.sysctls) (*sandbox.mutable_sysctls())[name] = value;
    sandbox.set_scratch_lun(0);
    const Status configured = pod_.client()->ConfigureSandbox(context_, request);
    if (!configured.ok()) return WithConsole(Annotate(configured, "configure the guest"));
    FaultPoint("run_pod.guest_configured");
    return absl::OkStatus();
  }

  // A pod whose containers all have limits is limited by the kubelet to their sum and the overhead: without an overhead
  // QEMU does not fit, and all that its end tells is a SIGKILL.
  [[nodiscard]] Status WithLackOfMemory(Status status) const {
    const std::string& parent = pod_.config().cgroup_parent;
    HostCgroups* cgroups = environment_.parts.cgroups;
    if (status.ok() || cgroups->OomKills(parent, pod_.id()) == 0) return status;
    const auto ceiling = cgroups->LeastMemoryAbove(parent);
    const std::string where =
        ceiling && ceiling->bytes < limits_.memory_bytes
            ? absl::StrCat("the cgroup ", ceiling->directory, " allows ", ceiling->bytes >> 20, " MiB")
            : absl::StrCat("its cgroup allows ", limits_.memory_bytes >> 20, " MiB");
    return absl::ResourceExhaustedError(
        absl::StrCat("the host killed the pod's VM for lack of memory while it booted: ", where,
                     "; a VM needs memory beside that of the containers: give the pod a RuntimeClass whose "
                     "overhead.podFixed.memory is ",
                     kRecommendedOverhead, ", or larger limits (", status.message(), ")"));
  }

  // What the guest's kernel said last is the only clue to a boot that failed.
  [[nodiscard]] Status WithConsole(const Status& status) const {
    const auto vm = pod_.vm();
    if (absl::IsInvalidArgument(status) || vm == nullptr) return status;
    const std::string console = vm->ConsoleTail(context_.Detached(std::chrono::seconds(2)));
    if (console.empty()) return status;
    const std::size_t from = console.size() > kConsoleBytes ? console.size() - kConsoleBytes : 0;
    const std::string shown = Printable(std::string_view(console).substr(from), kConsoleBytes);
    return {status.code(), absl::StrCat(status.message(), "; the end of the guest's console: ", shown)};
  }

  Environment& environment_;
  const RuntimeOptions options_;  // of this pod
  const Context& context_;
  Pod& pod_;
  Rollback& rollback_;
  std::vector<hypervisor::NetworkDevice> network_devices_;
  std::vector<std::string> cgroup_procs_;
  HostLimits limits_;   // of its cgroup, once it has booted
  Places::Place boot_;  // until the guest's agent answers
  std::string guest_boot_id_;
};

}  // namespace

Status CheckPodConfig(const PodConfig& config) {
  const auto refuse = [](const std::string& field, const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", why));
  };
  if (config.metadata.name.empty()) return refuse("metadata.name", "is empty");
  if (config.metadata.kubernetes_namespace.empty()) return refuse("metadata.namespace", "is empty");
  if (config.metadata.uid.empty()) return refuse("metadata.uid", "is empty");
  if (!config.log_directory.empty() && config.log_directory.front() != '/') {
    return refuse("log_directory", absl::StrCat("\"", config.log_directory, "\" is not an absolute path"));
  }
  HUSK_RETURN_IF_ERROR(BandwidthOf(config.annotations).status());
  const std::string prefix = "linux.security_context.namespace_options.";
  const std::string why = "NODE: a pod is a virtual machine and cannot be in the host's ";
  if (config.namespaces.network == NamespaceMode::kNode)
    return refuse(prefix + "network", why + "network (hostNetwork)");
  if (config.namespaces.pid == NamespaceMode::kNode) return refuse(prefix + "pid", why + "PID namespace (hostPID)");
  if (config.namespaces.ipc == NamespaceMode::kNode) return refuse(prefix + "ipc", why + "IPC namespace (hostIPC)");
  return absl::OkStatus();
}

Status MakePod(Environment& environment, const Context& context, Pod& pod) {
  FaultPoint("run_pod.recorded");
  bool all_undone = true;
  const Context interruptible = pod.Interruptible(context);
  Rollback rollback(context, kUndoTimeout, [&](const std::string& step, const Status& status) {
    all_undone = false;
    spdlog::error("pod={} undo RunPodSandbox: {}: {}", pod.id(), step, Words(status));
  });
  rollback.Add("forget it", [&](const Context&) -> Status {
    // With something left over the record stays, so that a removal or the next start tries again.
    if (!all_undone) return environment.store->SetPodPhase(pod.id(), PodPhase::kRemoving);
    HUSK_RETURN_IF_ERROR(environment.store->RemovePod(pod.id()));
    pod.SetRemoved();
    return absl::OkStatus();
  });
  const Status made = pod.Explain(Making(environment, interruptible, pod, rollback).Run());
  if (made.ok()) rollback.Commit();
  return made;
}

}  // namespace husk::sandbox
