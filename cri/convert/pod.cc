#include "cri/convert/pod.h"

#include "absl/strings/str_cat.h"
#include "cri/convert/common.h"
#include "cri/convert/resources.h"
#include "cri/convert/sysctls.h"

namespace husk::cri {

namespace {

StatusOr<std::uint16_t> Port(std::int32_t port, const std::string& field) {
  if (port < 0 || port > 65535) return FieldError(field, absl::StrCat(port, " is no port number"));
  return static_cast<std::uint16_t>(port);
}

StatusOr<sandbox::PortMapping> FromProto(const api::PortMapping& mapping, const std::string& field) {
  sandbox::PortMapping result;
  switch (mapping.protocol()) {
    case api::TCP:
      result.protocol = sandbox::Protocol::kTcp;
      break;
    case api::UDP:
      result.protocol = sandbox::Protocol::kUdp;
      break;
    case api::SCTP:
      result.protocol = sandbox::Protocol::kSctp;
      break;
    default:
      return FieldError(field + ".protocol", "unknown");
  }
  HUSK_ASSIGN_OR_RETURN(result.container_port, Port(mapping.container_port(), field + ".container_port"));
  HUSK_ASSIGN_OR_RETURN(result.host_port, Port(mapping.host_port(), field + ".host_port"));
  result.host_ip = mapping.host_ip();
  return result;
}

Status LinuxFromProto(const api::LinuxPodSandboxConfig& config, sandbox::PodConfig* out) {
  out->cgroup_parent = config.cgroup_parent();
  out->sysctls = FromProtoMap(config.sysctls());
  HUSK_RETURN_IF_ERROR(CheckSysctls(out->sysctls, "config.linux.sysctls"));
  const api::LinuxSandboxSecurityContext& security = config.security_context();
  // User, groups and read-only root of the sandbox itself concern a pause process, which a VM does not have.
  HUSK_RETURN_IF_ERROR(CheckConfinement(security, "config.linux.security_context"));
  if (security.has_namespace_options()) {
    HUSK_ASSIGN_OR_RETURN(out->namespaces, husk::cri::FromProto(security.namespace_options(),
                                                                "config.linux.security_context.namespace_options"));
  }
  out->privileged = security.privileged();
  HUSK_ASSIGN_OR_RETURN(out->overhead, ResourcesFromProto(config.overhead(), "config.linux.overhead"));
  HUSK_ASSIGN_OR_RETURN(out->resources, ResourcesFromProto(config.resources(), "config.linux.resources"));
  return absl::OkStatus();
}

void ToProto(const sandbox::PodMetadata& metadata, api::PodSandboxMetadata* out) {
  out->set_name(metadata.name);
  out->set_uid(metadata.uid);
  out->set_namespace_(metadata.kubernetes_namespace);
  out->set_attempt(metadata.attempt);
}

api::PodSandboxState ToProto(sandbox::PodState state) {
  return state == sandbox::PodState::kReady ? api::SANDBOX_READY : api::SANDBOX_NOTREADY;
}

}  // namespace

StatusOr<sandbox::PodConfig> PodConfigFromProto(const api::PodSandboxConfig& config,
                                                const std::string& runtime_handler) {
  if (config.has_windows()) return UnsupportedField("config.windows");
  sandbox::PodConfig result;
  result.metadata = {.name = config.metadata().name(),
                     .uid = config.metadata().uid(),
                     .kubernetes_namespace = config.metadata().namespace_(),
                     .attempt = config.metadata().attempt()};
  HUSK_RETURN_IF_ERROR(CheckName("config.metadata.name", result.metadata.name));
  HUSK_RETURN_IF_ERROR(CheckName("config.metadata.uid", result.metadata.uid));
  HUSK_RETURN_IF_ERROR(CheckName("config.metadata.namespace", result.metadata.kubernetes_namespace));
  if (!config.hostname().empty()) HUSK_RETURN_IF_ERROR(CheckName("config.hostname", config.hostname()));
  result.hostname = config.hostname();
  result.log_directory = config.log_directory();
  if (!result.log_directory.empty() && result.log_directory.front() != '/') {
    return FieldError("config.log_directory", "not an absolute path");
  }
  result.dns = {.servers = FromProtoList(config.dns_config().servers()),
                .searches = FromProtoList(config.dns_config().searches()),
                .options = FromProtoList(config.dns_config().options())};
  for (const api::PortMapping& mapping : config.port_mappings()) {
    HUSK_ASSIGN_OR_RETURN(result.port_mappings.emplace_back(),
                          FromProto(mapping, absl::StrCat("config.port_mappings[", result.port_mappings.size(), "]")));
  }
  result.labels = FromProtoMap(config.labels());
  result.annotations = FromProtoMap(config.annotations());
  HUSK_RETURN_IF_ERROR(LinuxFromProto(config.linux(), &result));
  result.runtime_handler = runtime_handler;
  return result;
}

sandbox::PodFilter PodFilterFromProto(const api::PodSandboxFilter& filter) {
  sandbox::PodFilter result;
  result.id = filter.id();
  if (filter.has_state()) {
    result.state =
        filter.state().state() == api::SANDBOX_READY ? sandbox::PodState::kReady : sandbox::PodState::kNotReady;
  }
  result.labels = FromProtoMap(filter.label_selector());
  return result;
}

void PodStatusToProto(const sandbox::PodStatus& pod, api::PodSandboxStatus* out) {
  out->set_id(pod.id);
  ToProto(pod.config.metadata, out->mutable_metadata());
  out->set_state(ToProto(pod.state));
  out->set_created_at(pod.created_at);
  auto* network = out->mutable_network();
  for (std::size_t i = 0; i < pod.addresses.size(); ++i) {
    if (i == 0) {
      network->set_ip(pod.addresses[i]);
    } else {
      network->add_additional_ips()->set_ip(pod.addresses[i]);
    }
  }
  husk::cri::ToProto(pod.config.namespaces, out->mutable_linux()->mutable_namespaces()->mutable_options());
  ToProtoMap(pod.config.labels, out->mutable_labels());
  ToProtoMap(pod.config.annotations, out->mutable_annotations());
  out->set_runtime_handler(pod.config.runtime_handler);
}

void PodToProto(const sandbox::PodStatus& pod, api::PodSandbox* out) {
  out->set_id(pod.id);
  ToProto(pod.config.metadata, out->mutable_metadata());
  out->set_state(ToProto(pod.state));
  out->set_created_at(pod.created_at);
  ToProtoMap(pod.config.labels, out->mutable_labels());
  ToProtoMap(pod.config.annotations, out->mutable_annotations());
  out->set_runtime_handler(pod.config.runtime_handler);
}

}  // namespace husk::cri
