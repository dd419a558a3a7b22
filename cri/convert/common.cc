#include "cri/convert/common.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"

namespace husk::cri {

namespace {

// What a caller wrote, as far as a message can show it: much shorter than a gRPC trailer.
std::string Shown(std::string_view text) {
  constexpr std::size_t kLongest = 1000;
  return Printable(text, kLongest);
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
  return absl::InvalidArgumentError(absl::StrCat(Shown(field), ": ", Shown(why)));
}

Status UnsupportedField(std::string_view field) {
  return absl::UnimplementedError(absl::StrCat(Shown(field), ": not supported by this version of Husk"));
}

Status UnsupportedField(std::string_view field, std::string_view why) {
  return absl::UnimplementedError(absl::StrCat(Shown(field), ": ", Shown(why)));
}

Status CheckName(std::string_view field, const std::string& name) {
  constexpr std::size_t kLongest = 512;
  constexpr std::size_t kShown = 100;
  if (name.empty()) return FieldError(field, "missing");
  const auto bad = [](char c) { return c < 0x20 || c > 0x7e || c == '/'; };
  if (std::any_of(name.begin(), name.end(), bad)) {
    return FieldError(field, absl::StrCat("\"", Printable(name, kShown),
                                          "\" has a slash, a control character, or one that is not ASCII"));
  }
  if (name.size() <= kLongest) return absl::OkStatus();
  return FieldError(field, absl::StrCat("\"", Printable(name, kShown), "\" is longer than ", kLongest, " bytes"));
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

StatusOr<sandbox::NamespaceOptions> FromProto(const api::NamespaceOption& options, const std::string& field) {
  sandbox::NamespaceOptions result;
  HUSK_ASSIGN_OR_RETURN(result.network, FromProto(options.network(), field + ".network"));
  HUSK_ASSIGN_OR_RETURN(result.pid, FromProto(options.pid(), field + ".pid"));
  HUSK_ASSIGN_OR_RETURN(result.ipc, FromProto(options.ipc(), field + ".ipc"));
  result.target_container_id = options.target_id();
  if (result.pid == sandbox::NamespaceMode::kTarget && result.target_container_id.empty()) {
    return FieldError(field + ".target_id", "missing, though pid is TARGET");
  }
  if (options.has_userns_options() && options.userns_options().mode() != api::NODE) {
    return UnsupportedField(field + ".userns_options",
                            "a pod in a VM has users of its own already; there is no namespace for them");
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
