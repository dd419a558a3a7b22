#include "cri/convert/container.h"

#include <cstdint>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "cri/convert/common.h"
#include "cri/convert/resources.h"
#include "cri/convert/security.h"

namespace husk::cri {

namespace {

// Put before the CRI's names by cri/proto/CMakeLists.txt.
constexpr char kSignalPrefix[] = "CRI_";

// docs/adr/0088 and 0121.
Status CheckPropagation(const api::Mount& mount, const std::string& field) {
  switch (mount.propagation()) {
    case api::PROPAGATION_PRIVATE:
    case api::PROPAGATION_HOST_TO_CONTAINER:
      return absl::OkStatus();
    case api::PROPAGATION_BIDIRECTIONAL:
      return UnsupportedField(field, "BIDIRECTIONAL: what is mounted in a virtual machine cannot appear on the host");
    default:
      return FieldError(field, "unknown");
  }
}

StatusOr<sandbox::ContainerMount> ImageMountFromProto(const api::Mount& mount, const std::string& field) {
  if (mount.image().image().empty()) return FieldError(field + ".image.image", "missing");
  if (!mount.host_path().empty()) return FieldError(field + ".host_path", "given together with image");
  if (mount.propagation() != api::PROPAGATION_PRIVATE) return FieldError(field + ".propagation", "given with image");
  // The kubelet sets readonly; there is no other way to have an image.
  return sandbox::ContainerMount{.container_path = mount.container_path(),
                                 .host_path = "",
                                 .read_only = true,
                                 .image = mount.image().image(),
                                 .image_sub_path = mount.image_sub_path()};
}

StatusOr<sandbox::ContainerMount> FromProto(const api::Mount& mount, const std::string& field) {
  if (mount.container_path().empty()) return FieldError(field + ".container_path", "missing");
  if (mount.uidmappings_size() != 0) return UnsupportedField(field + ".uidMappings");
  if (mount.gidmappings_size() != 0) return UnsupportedField(field + ".gidMappings");
  if (mount.recursive_read_only() && !mount.readonly()) {
    return FieldError(field + ".recursive_read_only", "set without readonly");
  }
  if (mount.has_image()) return ImageMountFromProto(mount, field);
  if (!mount.image_sub_path().empty()) return FieldError(field + ".image_sub_path", "given without image");
  HUSK_RETURN_IF_ERROR(CheckPropagation(mount, field + ".propagation"));
  return sandbox::ContainerMount{.container_path = mount.container_path(),
                                 .host_path = mount.host_path(),
                                 .read_only = mount.readonly(),
                                 .follow_mounts = mount.propagation() == api::PROPAGATION_HOST_TO_CONTAINER};
}

StatusOr<sandbox::ContainerDevice> FromProto(const api::Device& device, const std::string& field) {
  if (device.container_path().empty()) return FieldError(field + ".container_path", "missing");
  if (device.host_path().empty()) return FieldError(field + ".host_path", "missing");
  if (device.permissions().empty()) return FieldError(field + ".permissions", "missing");
  return sandbox::ContainerDevice{
      .container_path = device.container_path(), .host_path = device.host_path(), .permissions = device.permissions()};
}

void ToProto(const sandbox::ContainerMount& mount, api::Mount* out) {
  out->set_container_path(mount.container_path);
  out->set_host_path(mount.host_path);
  out->set_readonly(mount.read_only);
  // Every read-only mount is, whether or not that was asked for.
  out->set_recursive_read_only(mount.read_only);
  if (mount.follow_mounts) out->set_propagation(api::PROPAGATION_HOST_TO_CONTAINER);
  if (mount.image.empty()) return;
  out->mutable_image()->set_image(mount.image);
  out->set_image_sub_path(mount.image_sub_path);
}

void ToProto(const sandbox::ContainerMetadata& metadata, api::ContainerMetadata* out) {
  out->set_name(metadata.name);
  out->set_attempt(metadata.attempt);
}

// The image as the pod's author wrote it where that is known: the reference that people recognise.
void ImageToProto(const sandbox::ContainerConfig& config, api::ImageSpec* out) {
  out->set_image(config.user_image.empty() ? config.image : config.user_image);
  out->set_user_specified_image(config.user_image);
  ToProtoMap(config.image_annotations, out->mutable_annotations());
}

api::ContainerState ToProto(sandbox::ContainerState state) {
  switch (state) {
    case sandbox::ContainerState::kCreated:
      return api::CONTAINER_CREATED;
    case sandbox::ContainerState::kRunning:
      return api::CONTAINER_RUNNING;
    case sandbox::ContainerState::kExited:
      return api::CONTAINER_EXITED;
    case sandbox::ContainerState::kUnknown:
      return api::CONTAINER_UNKNOWN;
  }
  return api::CONTAINER_UNKNOWN;
}

sandbox::ContainerState FromProto(api::ContainerState state) {
  switch (state) {
    case api::CONTAINER_CREATED:
      return sandbox::ContainerState::kCreated;
    case api::CONTAINER_RUNNING:
      return sandbox::ContainerState::kRunning;
    case api::CONTAINER_EXITED:
      return sandbox::ContainerState::kExited;
    default:
      return sandbox::ContainerState::kUnknown;
  }
}

}  // namespace

StatusOr<sandbox::ContainerConfig> ContainerConfigFromProto(const api::ContainerConfig& config) {
  if (config.has_windows()) return UnsupportedField("config.windows");
  HUSK_RETURN_IF_ERROR(CheckName("config.metadata.name", config.metadata().name()));
  if (config.image().image().empty()) return FieldError("config.image.image", "missing");

  sandbox::ContainerConfig result;
  result.metadata = {.name = config.metadata().name(), .attempt = config.metadata().attempt()};
  result.image = config.image().image();
  result.user_image = config.image().user_specified_image();
  result.image_annotations = FromProtoMap(config.image().annotations());
  result.command = FromProtoList(config.command());
  result.arguments = FromProtoList(config.args());
  result.working_directory = config.working_dir();
  for (const api::KeyValue& variable : config.envs()) {
    if (variable.key().empty() || variable.key().find_first_of(std::string_view("=\0", 2)) != std::string::npos) {
      return FieldError("config.envs", absl::StrCat("\"", variable.key(), "\" is no name of a variable"));
    }
    result.environment.emplace_back(variable.key(), variable.value());
  }
  for (const api::Mount& mount : config.mounts()) {
    HUSK_ASSIGN_OR_RETURN(result.mounts.emplace_back(),
                          FromProto(mount, absl::StrCat("config.mounts[", result.mounts.size(), "]")));
  }
  for (const api::Device& device : config.devices()) {
    HUSK_ASSIGN_OR_RETURN(result.devices.emplace_back(),
                          FromProto(device, absl::StrCat("config.devices[", result.devices.size(), "]")));
  }
  for (const api::CDIDevice& device : config.cdi_devices()) result.cdi_devices.push_back(device.name());
  result.labels = FromProtoMap(config.labels());
  result.annotations = FromProtoMap(config.annotations());
  result.log_path = config.log_path();
  result.stdin = config.stdin();
  result.stdin_once = config.stdin_once();
  result.tty = config.tty();
  HUSK_ASSIGN_OR_RETURN(result.resources, ResourcesFromProto(config.linux().resources(), "config.linux.resources"));
  if (config.linux().has_security_context()) {
    HUSK_ASSIGN_OR_RETURN(result.security,
                          SecurityFromProto(config.linux().security_context(), "config.linux.security_context"));
  }
  if (!api::Signal_IsValid(config.stop_signal())) return FieldError("config.stop_signal", "unknown");
  result.stop_signal = SignalName(config.stop_signal());
  return result;
}

sandbox::ContainerFilter ContainerFilterFromProto(const api::ContainerFilter& filter) {
  sandbox::ContainerFilter result;
  result.id = filter.id();
  result.pod_id = filter.pod_sandbox_id();
  if (filter.has_state()) result.state = FromProto(filter.state().state());
  result.labels = FromProtoMap(filter.label_selector());
  return result;
}

void ContainerStatusToProto(const sandbox::ContainerStatus& container, api::ContainerStatus* out) {
  out->set_id(container.id);
  ToProto(container.config.metadata, out->mutable_metadata());
  out->set_state(ToProto(container.state));
  out->set_created_at(container.created_at);
  out->set_started_at(container.started_at);
  out->set_finished_at(container.finished_at);
  out->set_exit_code(container.exit_code);
  ImageToProto(container.config, out->mutable_image());
  out->set_image_ref(container.image_reference.empty() ? container.image_id : container.image_reference);
  out->set_reason(container.reason);
  out->set_message(container.message);
  ToProtoMap(container.config.labels, out->mutable_labels());
  ToProtoMap(container.config.annotations, out->mutable_annotations());
  for (const sandbox::ContainerMount& mount : container.config.mounts) {
    if (!mount.of_device) ToProto(mount, out->add_mounts());
  }
  out->set_log_path(container.log_path);
  ResourcesToProto(container.config.resources, out->mutable_resources()->mutable_linux());
  out->set_image_id(container.image_id);
  out->set_stop_signal(SignalFromName(container.config.stop_signal));
  if (container.user) UserToProto(*container.user, out->mutable_user());
}

void ContainerToProto(const sandbox::ContainerStatus& container, api::Container* out) {
  out->set_id(container.id);
  out->set_pod_sandbox_id(container.pod_id);
  ToProto(container.config.metadata, out->mutable_metadata());
  ImageToProto(container.config, out->mutable_image());
  out->set_image_ref(container.image_reference.empty() ? container.image_id : container.image_reference);
  out->set_state(ToProto(container.state));
  out->set_created_at(container.created_at);
  ToProtoMap(container.config.labels, out->mutable_labels());
  ToProtoMap(container.config.annotations, out->mutable_annotations());
  out->set_image_id(container.image_id);
}

std::string SignalName(api::Signal signal) {
  if (signal == api::RUNTIME_DEFAULT) return "";
  const std::string name = absl::StrReplaceAll(api::Signal_Name(signal), {{"PLUS", "+"}, {"MINUS", "-"}});
  return std::string(absl::StripPrefix(name, kSignalPrefix));
}

api::Signal SignalFromName(const std::string& name) {
  api::Signal signal = api::RUNTIME_DEFAULT;
  const std::string enumerator = absl::StrReplaceAll(name, {{"+", "PLUS"}, {"-", "MINUS"}});
  return api::Signal_Parse(kSignalPrefix + enumerator, &signal) ? signal : api::RUNTIME_DEFAULT;
}

}  // namespace husk::cri
