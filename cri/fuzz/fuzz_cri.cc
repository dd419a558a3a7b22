// The CRI's configurations as Husk's own types, and back. The first byte picks the message, the rest is its wire form.
#include <string>

#include "agent/common/fuzz_require.h"
#include "cri/convert/container.h"
#include "cri/convert/pod.h"
#include "cri/convert/resources.h"
#include "cri/proto/api.pb.h"

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;

// A profile by name is a file of the node: what a run finds must not depend on which there are.
template <typename SecurityContext>
void ForgetProfiles(SecurityContext& security) {
  security.mutable_seccomp()->clear_localhost_ref();
  security.mutable_apparmor()->clear_localhost_ref();
  security.clear_seccomp_profile_path();
}

void RequireRefusal(const Status& status) {
  fuzz::Require(absl::IsInvalidArgument(status) || absl::IsUnimplemented(status),
                "what cannot be done is refused as such: " + std::string(status.message()));
  fuzz::RequireSoundError(status);
}

template <typename Message>
void RequireSerializable(const Message& message) {
  Message again;
  fuzz::Require(again.ParseFromString(message.SerializeAsString()), "an answer can be read");
}

void RunPod(std::string_view wire) {
  api::PodSandboxConfig config;
  if (!config.ParseFromString(std::string(wire))) return;
  if (config.linux().has_security_context()) ForgetProfiles(*config.mutable_linux()->mutable_security_context());
  const auto pod = PodConfigFromProto(config, "husk");
  if (!pod.ok()) return RequireRefusal(pod.status());
  fuzz::Require(pod->metadata.name == config.metadata().name() && !pod->metadata.name.empty(), "a pod has its name");
  api::PodSandboxStatus status;
  PodStatusToProto({.id = "p", .config = *pod}, &status);
  fuzz::Require(status.metadata().uid() == config.metadata().uid(), "a pod keeps its uid");
  fuzz::Require(status.labels_size() == config.labels_size(), "a pod keeps its labels");
  fuzz::Require(status.annotations_size() == config.annotations_size(), "a pod keeps its annotations");
  RequireSerializable(status);
}

void RunContainer(std::string_view wire) {
  api::ContainerConfig config;
  if (!config.ParseFromString(std::string(wire))) return;
  if (config.linux().has_security_context()) ForgetProfiles(*config.mutable_linux()->mutable_security_context());
  const auto container = ContainerConfigFromProto(config);
  if (!container.ok()) return RequireRefusal(container.status());
  api::ContainerStatus status;
  ContainerStatusToProto({.id = "c", .pod_id = "p", .config = *container}, &status);
  fuzz::Require(status.metadata().name() == config.metadata().name(), "a container keeps its name");
  fuzz::Require(status.labels_size() == config.labels_size(), "a container keeps its labels");
  fuzz::Require(status.stop_signal() == config.stop_signal(), "a container keeps its stop signal");
  RequireSerializable(status);
}

void RunResources(std::string_view wire) {
  api::LinuxContainerResources resources;
  if (!resources.ParseFromString(std::string(wire))) return;
  const auto converted = ResourcesFromProto(resources, "linux");
  if (!converted.ok()) return RequireRefusal(converted.status());
  api::LinuxContainerResources told;
  ResourcesToProto(*converted, &told);
  fuzz::Require(told.memory_limit_in_bytes() == resources.memory_limit_in_bytes() &&
                    told.cpu_quota() == resources.cpu_quota() && told.cpu_shares() == resources.cpu_shares() &&
                    told.unified_size() == resources.unified_size(),
                "limits stay what they are");
  RequireSerializable(told);
}

void RunFilters(std::string_view wire) {
  api::PodSandboxFilter pods;
  if (pods.ParseFromString(std::string(wire))) {
    fuzz::Require(PodFilterFromProto(pods).id == pods.id(), "a filter keeps its id");
  }
  api::ContainerFilter containers;
  if (containers.ParseFromString(std::string(wire))) {
    fuzz::Require(ContainerFilterFromProto(containers).pod_id == containers.pod_sandbox_id(), "a filter keeps its pod");
  }
}

void Run(std::uint8_t choice, std::string_view wire) {
  switch (choice % 4) {
    case 0:
      return RunPod(wire);
    case 1:
      return RunContainer(wire);
    case 2:
      return RunResources(wire);
    default:
      return RunFilters(wire);
  }
}

}  // namespace
}  // namespace husk::cri

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) husk::cri::Run(*data, husk::fuzz::AsText(data + 1, size - 1));
  return 0;
}
