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
