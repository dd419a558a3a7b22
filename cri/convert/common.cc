#include "cri/convert/common.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace husk::cri {

namespace {

absl::string_view View(std::string_view text) {
  return {text.data(), text.size()};
}

StatusOr<sandbox::NamespaceMode> FromProto(api::NamespaceMode mode, const std::string& field) {
  switch (mode) {
    case api::POD:
      return sandbox::NamespaceMode::kPod;
    case api::CONTAINER:
      return sandbox::NamespaceMode::kContainer;
    case api::NODE:
      return sandbox::NamespaceMode::kNode;
    case api::TARGET:
      return sandbox::NamespaceMode::kTarget;
    default:
      return FieldError(field, absl::StrCat("unknown mode ", static_cast<int>(mode)));
  }
}

api::NamespaceMode ToProto(sandbox::NamespaceMode mode) {
  switch (mode) {
    case sandbox::NamespaceMode::kPod:
      return api::POD;
    case sandbox::NamespaceMode::kContainer:
      return api::CONTAINER;
    case sandbox::NamespaceMode::kNode:
      return api::NODE;
    case sandbox::NamespaceMode::kTarget:
      return api::TARGET;
  }
  return api::POD;
}

}  // namespace

Status FieldError(std::string_view field, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(View(field), ": ", View(why)));
}

Status UnsupportedField(std::string_view field) {
  return absl::UnimplementedError(absl::StrCat(View(field), ": not supported by this version of Husk"));
}

Status CheckName(std::string_view field, const std::string& name) {
  constexpr std::size_t kLongest = 512;
  if (name.empty()) return FieldError(field, "missing");
  if (name.size() > kLongest) return FieldError(field, absl::StrCat("longer than ", kLongest, " bytes"));
  const auto bad = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '/'; };
  if (std::any_of(name.begin(), name.end(), bad)) return FieldError(field, "has a slash or a control character");
  return absl::OkStatus();
}

sandbox::StringMap FromProtoMap(const google::protobuf::Map<std::string, std::string>& map) {
  return {map.begin(), map.end()};
}

void ToProtoMap(const sandbox::StringMap& map, google::protobuf::Map<std::string, std::string>* out) {
  for (const auto& [key, value] : map) (*out)[key] = value;
}

std::vector<std::string> FromProtoList(const google::protobuf::RepeatedPtrField<std::string>& list) {
  return {list.begin(), list.end()};
}

StatusOr<sandbox::LinuxResources> FromProto(const api::LinuxContainerResources& resources, const std::string& field) {
  sandbox::LinuxResources result;
  result.cpu_period = resources.cpu_period();
  result.cpu_quota = resources.cpu_quota();
  result.cpu_shares = resources.cpu_shares();
  result.memory_limit_bytes = resources.memory_limit_in_bytes();
  result.oom_score_adjustment = resources.oom_score_adj();
  result.cpuset_cpus = resources.cpuset_cpus();
  result.cpuset_mems = resources.cpuset_mems();
  result.unified = FromProtoMap(resources.unified());
  result.memory_swap_limit_bytes = resources.memory_swap_limit_in_bytes();
  if (result.cpu_period < 0) return FieldError(field + ".cpu_period", "negative");
  if (result.memory_limit_bytes < 0) return FieldError(field + ".memory_limit_in_bytes", "negative");
  if (result.cpu_shares < 0) return FieldError(field + ".cpu_shares", "negative");
  // The kubelet sends a limit of 0 for each page size of the host; only a real one asks for anything.
  for (const api::HugepageLimit& limit : resources.hugepage_limits()) {
    if (limit.limit() != 0) return UnsupportedField(absl::StrCat(field, ".hugepage_limits[", limit.page_size(), "]"));
  }
  return result;
}

void ToProto(const sandbox::LinuxResources& resources, api::LinuxContainerResources* out) {
  out->set_cpu_period(resources.cpu_period);
  out->set_cpu_quota(resources.cpu_quota);
  out->set_cpu_shares(resources.cpu_shares);
  out->set_memory_limit_in_bytes(resources.memory_limit_bytes);
  out->set_oom_score_adj(resources.oom_score_adjustment);
  out->set_cpuset_cpus(resources.cpuset_cpus);
  out->set_cpuset_mems(resources.cpuset_mems);
  ToProtoMap(resources.unified, out->mutable_unified());
  out->set_memory_swap_limit_in_bytes(resources.memory_swap_limit_bytes);
}

StatusOr<sandbox::NamespaceOptions> FromProto(const api::NamespaceOption& options, const std::string& field) {
  sandbox::NamespaceOptions result;
  HUSK_ASSIGN_OR_RETURN(result.network, FromProto(options.network(), field + ".network"));
  HUSK_ASSIGN_OR_RETURN(result.pid, FromProto(options.pid(), field + ".pid"));
  HUSK_ASSIGN_OR_RETURN(result.ipc, FromProto(options.ipc(), field + ".ipc"));
  result.target_container_id = options.target_id();
  if (options.has_userns_options() && options.userns_options().mode() != api::NODE) {
    return UnsupportedField(field + ".userns_options");
  }
  return result;
}

void ToProto(const sandbox::NamespaceOptions& options, api::NamespaceOption* out) {
  out->set_network(ToProto(options.network));
  out->set_pid(ToProto(options.pid));
  out->set_ipc(ToProto(options.ipc));
  out->set_target_id(options.target_container_id);
}

}  // namespace husk::cri
