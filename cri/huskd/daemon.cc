#include "cri/huskd/daemon.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "agent/client/agent_client.h"
#include "agent/client/call_observer.h"
#include "agent/common/context.h"
#include "cri/huskd/instance_lock.h"
#include "cri/lanes.h"
#include "cri/metrics/metrics.h"
#include "cri/metrics/metrics_server.h"
#include "cri/service/handlers.h"
#include "cri/service/server.h"
#include "cri/service/streams.h"
#include "cri/streaming/server.h"
#include "hypervisor/qemu/qemu_hypervisor.h"
#include "images/image_service.h"
#include "sandbox/event_hub.h"
#include "sandbox/network/network.h"
#include "sandbox/runtime.h"

namespace husk::cri {

namespace {

// How long calls in flight may go on after SIGTERM before they are cancelled.
constexpr auto kShutdownGrace = std::chrono::seconds(5);

Status MakeDirectory(const std::string& path, std::filesystem::perms permissions) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) std::filesystem::permissions(path, permissions, error);
  return error ? ErrnoStatus(error.value(), "make the directory " + path) : absl::OkStatus();
}

void RaiseDescriptorLimit() {
  constexpr rlim_t kWanted = 1 << 20;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  rlimit raised{.rlim_cur = std::max(limit.rlim_cur, kWanted), .rlim_max = std::max(limit.rlim_max, kWanted)};
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return;
  // Without the right to go beyond the hard limit.
  raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &raised) != 0) spdlog::warn("RLIMIT_NOFILE stays at {}", limit.rlim_cur);
}

hypervisor::QemuOptions QemuOptionsOf(const Config& config) {
  hypervisor::QemuOptions options{.qemu_binary = config.vm.qemu,
                                  .launcher_binary = config.vm.launcher,
                                  .kernel = config.vm.kernel,
                                  .initrd = config.vm.initrd,
                                  .accelerator = std::nullopt};
  if (config.vm.accelerator == AcceleratorChoice::kKvm) options.accelerator = hypervisor::Accelerator::kKvm;
  if (config.vm.accelerator == AcceleratorChoice::kTcg) options.accelerator = hypervisor::Accelerator::kTcg;
  return options;
}

sandbox::RuntimeOptions RuntimeOptionsOf(const Config& config) {
  sandbox::RuntimeOptions options;
  options.root_directory = config.root;
  options.state_directory = config.state;
  options.first_user = config.vm.first_user;
  options.user_count = config.vm.user_count;
  options.default_vcpus = config.vm.default_vcpus;
  options.maximum_vcpus = config.vm.maximum_vcpus;
  options.unlimited_vcpus = UnlimitedVcpus(config);
  options.default_memory_bytes = config.vm.default_memory;
  options.maximum_memory_bytes = config.vm.maximum_memory;
  options.unlimited_memory_bytes = config.vm.unlimited_memory;
  options.scratch_bytes = config.vm.scratch_size;
  options.cgroup_root = config.cgroup_root;
  options.cdi_directories = config.cdi_directories;
  return options;
}

// What RuntimeReady means: the next pod would find all that its VM is made of.
Status CheckVmFiles(const Config& config) {
  if (access(config.vm.qemu.c_str(), X_OK) != 0) return ErrnoStatus(errno, "QEMU, " + config.vm.qemu);
  if (access(config.vm.launcher.c_str(), X_OK) != 0)
    return ErrnoStatus(errno, "the VM launcher, " + config.vm.launcher);
  if (access(config.vm.kernel.c_str(), R_OK) != 0) return ErrnoStatus(errno, "the guest kernel, " + config.vm.kernel);
  if (access(config.vm.initrd.c_str(), R_OK) != 0) return ErrnoStatus(errno, "the guest initrd, " + config.vm.initrd);
  return absl::OkStatus();
}

// All parts, in the order in which they need each other; they go in the reverse one.
class Daemon {
 public:
  explicit Daemon(Config config) : config_(std::move(config)) {}

  Status Start(const Context& context) {
    HUSK_RETURN_IF_ERROR(ClaimDirectories());
    RaiseDescriptorLimit();
    HUSK_RETURN_IF_ERROR(MakeHypervisor(context));
    HUSK_RETURN_IF_ERROR(MakeRuntime(context));
    return Serve();
  }

  void Stop() {
    metrics_server_.reset();
    if (server_) server_->Shutdown(kShutdownGrace);
    if (streaming_) streaming_->Stop();
    if (lanes_) lanes_->Drain();
    if (runtime_) runtime_->Detach();
    // One that never served has no pods to speak of, and the reason why comes after this.
    if (server_) spdlog::info("stopped; the pods go on running");
  }

 private:
  Status ClaimDirectories() {
    using std::filesystem::perms;
    // What lies in them belongs to root alone; QEMU gets descriptors, not paths. Containers' addresses of sockets and
    // namespaces below the state directory must be passable.
    constexpr perms kPassable = perms::owner_all | perms::group_exec | perms::others_exec;
    HUSK_RETURN_IF_ERROR(MakeDirectory(config_.root, perms::owner_all));
    HUSK_RETURN_IF_ERROR(MakeDirectory(config_.state, kPassable));
    HUSK_RETURN_IF_ERROR(MakeDirectory(config_.state + "/netns", kPassable));
    HUSK_ASSIGN_OR_RETURN(const std::string socket, SocketPath(config_.listen));
    const std::string socket_directory = std::filesystem::path(socket).parent_path();
    std::error_code error;
    if (!std::filesystem::exists(socket_directory, error)) {
      HUSK_RETURN_IF_ERROR(MakeDirectory(socket_directory, kPassable));
    }
    HUSK_ASSIGN_OR_RETURN(root_lock_, InstanceLock::Take(config_.root, "--root"));
    HUSK_ASSIGN_OR_RETURN(state_lock_, InstanceLock::Take(config_.state, "--state"));
    return absl::OkStatus();
  }

  Status MakeHypervisor(const Context& context) {
    HUSK_RETURN_IF_ERROR(CheckVmFiles(config_));
    HUSK_ASSIGN_OR_RETURN_DOING(hypervisor_, hypervisor::NewQemuHypervisor(QemuOptionsOf(config_)), "set QEMU up");
    HUSK_ASSIGN_OR_RETURN_DOING(const std::string version, hypervisor_->Version(context),
                                "ask " + config_.vm.qemu + " for its version");
    const hypervisor::AcceleratorProbe probe = hypervisor_->accelerator();
    const bool tcg = probe.accelerator == hypervisor::Accelerator::kTcg;
    spdlog::info("qemu={} version={} accelerator={}", config_.vm.qemu, version, tcg ? "tcg" : "kvm");
    if (tcg) {
      spdlog::warn("pods run without hardware virtualisation (TCG), many times slower than with it: {}", probe.reason);
    }
    metrics_.SetBuild({.version = HUSK_VERSION, .qemu_version = version, .accelerator = tcg ? "tcg" : "kvm"});
    information_["husk"] = nlohmann::json{
        {"version", HUSK_VERSION},
        {"qemu", config_.vm.qemu},
        {"qemuVersion", version},
        {"accelerator", tcg ? "tcg" : "kvm"},
        {"acceleratorReason", probe.reason},
        {"kernel", config_.vm.kernel},
        {"initrd", config_.vm.initrd},
        {"root", config_.root},
        {"state", config_.state},
        {"pid", getpid()}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    // As --check-config prints it; no credential is ever in it.
    information_["config"] =
        nlohmann::json(ConfigToYaml(config_)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return absl::OkStatus();
  }

  Status MakeRuntime(const Context& context) {
    agents_ =
        agent::NewObservedTtrpcConnector([this](std::string_view method, std::chrono::nanoseconds took,
                                                const Status& status) { metrics_.OnAgentCall(method, took, status); });
    HUSK_ASSIGN_OR_RETURN_DOING(images_,
                                images::NewImageService({.directory = config_.root + "/images",
                                                         .parallel_layers = config_.parallel_layers,
                                                         .pinned = config_.pinned_images,
                                                         .registry_hosts = config_.registry_hosts}),
                                "open the images below " + config_.root);
    HUSK_ASSIGN_OR_RETURN_DOING(
        network_,
        sandbox::NewCniNetwork({.configuration_directory = config_.network.configuration_directory,
                                .plugin_directories = config_.network.plugin_directories,
                                .namespace_directory = config_.state + "/netns",
                                .cache_directory = config_.root + "/cni",
                                .default_bridge = config_.network.default_bridge,
                                .default_subnet = config_.network.default_subnet,
                                .filter_sources = config_.network.filter_sources}),
        "set the network up");
    if (const Status ready = network_->Ready(); !ready.ok())
      spdlog::warn("the network is not ready: {}", std::string(ready.message()));
    HUSK_ASSIGN_OR_RETURN_DOING(const sandbox::RuntimeOptions options,
                                sandbox::WithHostLimits(RuntimeOptionsOf(config_)), "size VMs");
    maximum_vcpus_ = options.maximum_vcpus;
    maximum_memory_ = options.maximum_memory_bytes;
    HUSK_ASSIGN_OR_RETURN_DOING(runtime_,
                                sandbox::NewRuntime(options, {.hypervisor = hypervisor_.get(),
                                                              .agents = agents_.get(),
                                                              .images = images_.get(),
                                                              .network = network_.get(),
                                                              .events = &events_,
                                                              .observer = &metrics_}),
                                "open the pods below " + config_.root);
    HUSK_RETURN_IF_ERROR_DOING(runtime_->Recover(context), "recover the pods of the last run");
    // Images of adopted containers are leased now; what nobody holds can go.
    if (const Status collected = images_->CollectGarbage(context); !collected.ok()) {
      spdlog::warn("collect the images' garbage: {}", std::string(collected.message()));
    }
    spdlog::info("recovered pods={} containers={}", runtime_->ListPods({}).size(), runtime_->ListContainers({}).size());
    return absl::OkStatus();
  }

  Status Serve() {
    lanes_ = std::make_unique<Lanes>(config_.lanes, &metrics_);
    HUSK_RETURN_IF_ERROR(StartStreaming());
    handlers_ = std::make_unique<Handlers>(HandlerParts{.runtime = runtime_.get(),
                                                        .network = network_.get(),
                                                        .images = images_.get(),
                                                        .lanes = lanes_.get(),
                                                        .streaming = streaming_.get(),
                                                        .scratch_directory = config_.root,
                                                        .cgroup_driver = config_.cgroup_driver,
                                                        .config = ConfigWithMaxima(),
                                                        .runtime_ready = [this] { return CheckVmFiles(config_); },
                                                        .information = [this] { return information_; }});
    HUSK_RETURN_IF_ERROR(ServeMetrics());
    HUSK_ASSIGN_OR_RETURN(const std::string socket, SocketPath(config_.listen));
    HUSK_ASSIGN_OR_RETURN(server_, Server::Start(socket, handlers_.get(), lanes_.get(), &events_));
    spdlog::info("huskd version={} serves listen={} root={} state={}", HUSK_VERSION, config_.listen, config_.root,
                 config_.state);
    return absl::OkStatus();
  }

  // For pods' annotations.
  [[nodiscard]] Config ConfigWithMaxima() const {
    Config config = config_;
    config.vm.maximum_vcpus = maximum_vcpus_;
    config.vm.maximum_memory = maximum_memory_;
    return config;
  }

  Status StartStreaming() {
    StreamingOptions options;
    options.address = config_.streaming.address;
    options.certificate_file = config_.streaming.certificate;
    options.key_file = config_.streaming.key;
    auto server = StreamingServer::Start(options, OperationOf(runtime_.get()), ForwardOf(runtime_.get()));
    // Its errors begin with the name of the setting.
    if (!server.ok()) {
      return Status(server.status().code(), absl::StrCat("streaming.", server.status().message()));
    }
    streaming_ = *std::move(server);
    spdlog::info("streaming address={} tls={}", streaming_->address(), !options.certificate_file.empty());
    return absl::OkStatus();
  }

  Status ServeMetrics() {
    if (config_.metrics_address.empty()) return absl::OkStatus();
    const MetricSources sources{.lanes = lanes_.get(), .runtime = runtime_.get(), .events = &events_};
    HUSK_ASSIGN_OR_RETURN(metrics_server_, MetricsServer::Start({.address = config_.metrics_address},
                                                                [this, sources] { return metrics_.Text(sources); }));
    return absl::OkStatus();
  }

  const Config config_;
  std::uint32_t maximum_vcpus_ = 0;  // of a VM, the host's where the configuration has none
  std::uint64_t maximum_memory_ = 0;
  std::map<std::string, std::string> information_;
  std::optional<InstanceLock> root_lock_;
  std::optional<InstanceLock> state_lock_;
  Metrics metrics_;
  sandbox::EventHub events_;
  std::unique_ptr<hypervisor::Hypervisor> hypervisor_;
  std::unique_ptr<agent::AgentConnector> agents_;
  std::unique_ptr<images::ImageService> images_;
  std::unique_ptr<sandbox::Network> network_;
  std::unique_ptr<sandbox::Runtime> runtime_;
  std::unique_ptr<StreamingServer> streaming_;
  std::unique_ptr<Lanes> lanes_;
  std::unique_ptr<Handlers> handlers_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<MetricsServer> metrics_server_;
};

}  // namespace

Status RunDaemon(const Config& config, const std::stop_token& stop) {
  if (geteuid() != 0) {
    return absl::PermissionDeniedError("huskd must run as root: it makes network namespaces, taps and cgroups");
  }
  Daemon daemon(config);
  const Context context = Context::Background("start").WithStopToken(stop);
  const Status started = daemon.Start(context);
  if (started.ok()) {
    sd_notify(0, "READY=1");
    // Ends when the token fires; there is no deadline.
    while (context.Check().ok()) (void)SleepFor(context, std::chrono::hours(1));
  }
  sd_notify(0, "STOPPING=1");
  daemon.Stop();
  // A start that was interrupted by SIGTERM is a stop like any other.
  return stop.stop_requested() ? absl::OkStatus() : started;
}

}  // namespace husk::cri
