#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/fault_point.h"
#include "agent/common/printable.h"
#include "agent/common/rollback.h"
#include "sandbox/cdi/inject.h"
#include "sandbox/container_disks.h"
#include "sandbox/container_operations.h"
#include "sandbox/id.h"
#include "sandbox/logging.h"
#include "sandbox/oci/oci_config.h"
#include "sandbox/oci/seccomp_localhost.h"
#include "sandbox/resize.h"
#include "sandbox/signals.h"

namespace husk::sandbox {
namespace {

constexpr auto kUndoTimeout = std::chrono::seconds(30);

Status CheckContainerConfig(const ContainerConfig& config) {
  if (config.metadata.name.empty()) return absl::InvalidArgumentError("metadata.name: is empty");
  if (config.image.empty()) return absl::InvalidArgumentError("image.image: is empty");
  const std::string prefix = "linux.security_context.namespace_options.";
  const NamespaceOptions& namespaces = config.security.namespaces;
  const std::string why = "NODE: the container is in a virtual machine and cannot be in the host's namespace";
  if (namespaces.network == NamespaceMode::kNode) return absl::InvalidArgumentError(prefix + "network: " + why);
  if (namespaces.pid == NamespaceMode::kNode) return absl::InvalidArgumentError(prefix + "pid: " + why);
  if (namespaces.ipc == NamespaceMode::kNode) return absl::InvalidArgumentError(prefix + "ipc: " + why);
  const UserSpec& user = config.security.user;
  if (user.gid && !user.uid && user.username.empty()) {
    return absl::InvalidArgumentError(
        "linux.security_context.run_as_group: is set without run_as_user or run_as_username");
  }
  if (!config.stop_signal.empty()) HUSK_RETURN_IF_ERROR_DOING(ParseSignal(config.stop_signal).status(), "stop_signal");
  return absl::OkStatus();
}

// A container that looks into another one needs it, in the same pod and alive: the namespace dies with its first
// process.
Status CheckTarget(const Pod& pod, const NamespaceOptions& namespaces) {
  if (namespaces.pid != NamespaceMode::kTarget) return absl::OkStatus();
  const std::string field = "linux.security_context.namespace_options.target_id: ";
  const std::string& id = namespaces.target_container_id;
  const auto target = pod.container_status(id);
  if (!target) {
    return absl::InvalidArgumentError(absl::StrCat(field, "the pod has no container \"", Printable(id, 100), "\""));
  }
  if (target->state == ContainerState::kRunning) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(field, "container ", id, " does not run"));
}

// The file is read once: what is later done to it concerns later containers.
StatusOr<std::string> LocalhostProfile(const SecurityContext& security) {
  if (security.privileged || security.seccomp.kind != SeccompKind::kLocalhost) return std::string();
  auto profile = ReadSeccompProfile(security.seccomp.path);
  if (profile.ok()) return profile;
  // The caller's word is wrong, not the call's object missing, which is what NOT_FOUND would say.
  return absl::InvalidArgumentError(absl::StrCat("linux.security_context.seccomp: ", profile.status().message()));
}

agent::v1::ContainerSpec MakeSpec(const std::string& id, const ContainerConfig& config,
                                  const images::ImageRunConfig& image, std::uint32_t lun, std::string oci_config) {
  agent::v1::ContainerSpec spec;
  spec.set_id(id);
  spec.set_image_lun(lun);
  agent::v1::User& user = *spec.mutable_user();
  user.set_image_user(image.user);
  if (config.security.user.uid) user.set_uid(*config.security.user.uid);
  if (config.security.user.gid) user.set_gid(*config.security.user.gid);
  user.set_username(config.security.user.username);
  for (const std::uint32_t gid : config.security.user.supplemental_gids) user.add_supplemental_gids(gid);
  user.set_strict_supplemental_groups(config.security.user.strict_supplemental_groups);
  spec.set_oci_config_json(std::move(oci_config));
  spec.set_tty(config.tty);
  spec.set_stdin(config.stdin);
  spec.set_stdin_once(config.stdin_once);
  spec.set_readonly_root(config.security.readonly_root);
  const NamespaceOptions& namespaces = config.security.namespaces;
  spec.set_pod_pid_namespace(namespaces.pid == NamespaceMode::kPod);
  if (namespaces.pid == NamespaceMode::kTarget) spec.set_target_container_id(namespaces.target_container_id);
  return spec;
}

ContainerStatus FirstStatus(const Pod& pod, const std::string& id, const ContainerConfig& config,
                            const images::Image& image) {
  ContainerStatus status{.id = id, .pod_id = pod.id(), .config = config, .state = ContainerState::kCreated};
  status.created_at = NowNanoseconds();
  status.image_id = image.id;
  status.image_reference = image.repository_digests.empty() ? image.id : image.repository_digests.front();
  if (!config.log_path.empty() && !pod.config().log_directory.empty()) {
    status.log_path = absl::StrCat(pod.config().log_directory, "/", config.log_path);
  }
  return status;
}

std::vector<DiskRecord> RecordsOf(const ContainerDisks& disks) {
  std::vector<DiskRecord> records;
  for (const ContainerDisk& disk : disks.disks()) records.push_back({.key = disk.key, .lun = disk.lun});
  return records;
}

}  // namespace

StatusOr<std::shared_ptr<ContainerOutput>> OpenOutput(const PodConfig& pod, const std::string& id,
                                                      const ContainerConfig& config, const LogCheckpoint& checkpoint) {
  std::unique_ptr<ContainerLog> log;
  if (config.log_path.empty() || pod.log_directory.empty()) {
    log = NewDiscardingLog(checkpoint);
  } else {
    HUSK_ASSIGN_OR_RETURN_DOING(log, OpenContainerLog(pod.log_directory, config.log_path, checkpoint), "open the log");
  }
  return std::make_shared<ContainerOutput>(id, std::move(log), config.tty);
}

StatusOr<std::string> MakeContainer(Environment& environment, const Context& context, Pod& pod,
                                    const ContainerConfig& given) {
  HUSK_RETURN_IF_ERROR(CheckContainerConfig(given));
  HUSK_RETURN_IF_ERROR(CheckTarget(pod, given.security.namespaces));
  HUSK_ASSIGN_OR_RETURN(const ContainerConfig config, InjectCdiDevices(environment.options.cdi_directories, given));
  HUSK_ASSIGN_OR_RETURN_DOING(std::shared_ptr<images::ImageLease> lease,
                              environment.parts.images->Acquire(config.image),
                              absl::StrCat("use image ", config.image));
  const images::Image& image = lease->image();
  std::string id = NewId();
  HUSK_ASSIGN_OR_RETURN(const std::string seccomp, LocalhostProfile(config.security));
  HUSK_ASSIGN_OR_RETURN(std::string oci_config, MakeOciConfig(pod.config(), id, config, image.run, seccomp));
  HUSK_ASSIGN_OR_RETURN(const auto output, OpenOutput(pod.config(), id, config, {}));
  const auto vm = pod.vm();
  const auto client = pod.client();
  if (vm == nullptr || client == nullptr) return absl::FailedPreconditionError("the pod has no VM");

  Rollback rollback(context, kUndoTimeout, [&](const std::string& step, const Status& status) {
    spdlog::warn("pod={} container={} undo CreateContainer: {}: {}", pod.id(), id, step, Words(status));
  });
  ContainerRecord record{.status = FirstStatus(pod, id, config, image), .checkpoint = output->checkpoint()};
  record.stop_signal = config.stop_signal.empty() ? image.run.stop_signal : config.stop_signal;
  rollback.Add("forget it", [&](const Context&) { return environment.store->RemoveContainer(id); });
  HUSK_RETURN_IF_ERROR(environment.store->AddContainer(record));
  FaultPoint("create_container.recorded");

  ContainerDisks disks(context, *environment.parts.images, pod, vm, rollback);
  HUSK_ASSIGN_OR_RETURN_DOING(const std::uint32_t lun, disks.AttachImage(*lease),
                              absl::StrCat("attach image ", config.image));
  FaultPoint("create_container.disk_attached");

  const auto volumes = pod.volumes();
  if (volumes == nullptr) return absl::FailedPreconditionError("the pod has no VM");
  // A pod's stop waits for no guest: what was made in it goes with the VM.
  rollback.Add("remove its volumes", [&pod, vm, volumes, mounts = config.mounts](const Context& undo) {
    return vm->alive() ? volumes->Release(pod.Interruptible(undo), mounts) : absl::OkStatus();
  });
  HUSK_ASSIGN_OR_RETURN(const auto volume_mounts, volumes->Prepare(context, config.mounts));
  FaultPoint("create_container.volumes_prepared");

  rollback.Add("make the VM as small as it was", [&environment, &pod, vm](const Context& undo) {
    return vm->alive() ? FitPod(environment, pod.Interruptible(undo), pod, NeedsOf(pod)) : absl::OkStatus();
  });
  PodNeeds needs = NeedsOf(pod);
  needs.containers.push_back(config.resources);
  HUSK_RETURN_IF_ERROR_DOING(GrowPod(environment, context, pod, needs), LimitFields(config.resources));

  agent::v1::CreateContainerRequest request;
  *request.mutable_spec() = MakeSpec(id, config, image.run, lun, std::move(oci_config));
  HUSK_RETURN_IF_ERROR(disks.AddImageMounts(config.mounts, *request.mutable_spec()));
  HUSK_RETURN_IF_ERROR(disks.AddDevices(config.devices, *request.mutable_spec()));
  FaultPoint("create_container.devices_attached");
  for (const agent::v1::VolumeMount& mount : volume_mounts) *request.mutable_spec()->add_volume_mounts() = mount;
  rollback.Add("remove it from the guest", [&pod, vm, client, id](const Context& undo) -> Status {
    if (!vm->alive()) return absl::OkStatus();
    agent::v1::RemoveContainerRequest remove;
    remove.set_container_id(id);
    return client->RemoveContainer(pod.Interruptible(undo), remove);
  });
  const auto created = client->CreateContainer(context, request);
  HUSK_RETURN_IF_ERROR(ExplainImageVolume(Annotate(created.status(), "create the container in the guest")));
  const ResolvedUser user{
      .uid = created->uid(),
      .gid = created->gid(),
      .supplemental_gids = {created->supplemental_gids().begin(), created->supplemental_gids().end()}};
  FaultPoint("create_container.created_in_guest");

  HUSK_RETURN_IF_ERROR(environment.store->SetContainerCreated(id, lun, user, RecordsOf(disks)));
  record.status.user = user;
  FaultPoint("create_container.created_recorded");
  pod.AddContainer({.id = id,
                    .stop_signal = record.stop_signal,
                    .lun = lun,
                    .lease = std::move(lease),
                    .disks = disks.disks(),
                    .output = output},
                   record.status);
  rollback.Commit();
  spdlog::info("pod={} container={} created: {} of image {}", pod.id(), id, config.metadata.name, config.image);
  return id;
}

}  // namespace husk::sandbox
