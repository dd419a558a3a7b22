#include "cri/convert/security.h"

#include <cstdint>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "cri/convert/common.h"

namespace husk::cri {

namespace {

constexpr absl::string_view kLocalhostPrefix = "localhost/";

StatusOr<sandbox::UserSpec> UserFromProto(const api::LinuxContainerSecurityContext& security,
                                          const std::string& field) {
  sandbox::UserSpec user;
  if (security.has_run_as_user()) user.uid = security.run_as_user().value();
  if (security.has_run_as_group()) user.gid = security.run_as_group().value();
  user.username = security.run_as_username();
  if (user.uid && !user.username.empty()) {
    return FieldError(field + ".run_as_username", "given together with run_as_user");
  }
  if (user.gid && !user.uid && user.username.empty()) {
    return FieldError(field + ".run_as_group", "given without run_as_user or run_as_username");
  }
  constexpr std::int64_t kLastId = std::numeric_limits<std::int32_t>::max();
  const auto in_range = [](std::int64_t id) { return id >= 0 && id <= kLastId; };
  if (user.uid && !in_range(*user.uid)) {
    return FieldError(field + ".run_as_user", absl::StrCat(*user.uid, " is out of range"));
  }
  if (user.gid && !in_range(*user.gid)) {
    return FieldError(field + ".run_as_group", absl::StrCat(*user.gid, " is out of range"));
  }
  for (const std::int64_t gid : security.supplemental_groups()) {
    if (!in_range(gid)) return FieldError(field + ".supplemental_groups", absl::StrCat(gid, " is out of range"));
    user.supplemental_gids.push_back(static_cast<std::uint32_t>(gid));
  }
  switch (security.supplemental_groups_policy()) {
    case api::Merge:
      return user;
    case api::Strict:
      user.strict_supplemental_groups = true;
      return user;
    default:
      return FieldError(field + ".supplemental_groups_policy", "unknown policy");
  }
}

StatusOr<sandbox::SeccompProfile> LocalhostProfile(absl::string_view path, const std::string& field) {
  path = absl::StripPrefix(path, kLocalhostPrefix);
  if (path.empty() || path.front() != '/') return FieldError(field, "is not the absolute path of a profile");
  return sandbox::SeccompProfile{.kind = sandbox::SeccompKind::kLocalhost, .path = std::string(path)};
}

// The words of the field that came before SecurityProfile.
StatusOr<sandbox::SeccompProfile> SeccompFromWords(const std::string& words, const std::string& field) {
  if (words.empty() || words == "unconfined") return sandbox::SeccompProfile{};
  if (words == "runtime/default" || words == "docker/default") {
    return sandbox::SeccompProfile{.kind = sandbox::SeccompKind::kRuntimeDefault, .path = ""};
  }
  if (absl::StartsWith(words, kLocalhostPrefix)) return LocalhostProfile(words, field);
  return FieldError(field, absl::StrCat("\"", words, "\" is none of runtime/default, unconfined, localhost/<path>"));
}

StatusOr<sandbox::SeccompProfile> SeccompFromProto(const api::LinuxContainerSecurityContext& security,
                                                   const std::string& field) {
  if (!security.has_seccomp()) {
    return SeccompFromWords(security.seccomp_profile_path(), field + ".seccomp_profile_path");
  }
  switch (security.seccomp().profile_type()) {
    case api::SecurityProfile::RuntimeDefault:
      return sandbox::SeccompProfile{.kind = sandbox::SeccompKind::kRuntimeDefault, .path = ""};
    case api::SecurityProfile::Unconfined:
      return sandbox::SeccompProfile{};
    case api::SecurityProfile::Localhost:
      return LocalhostProfile(security.seccomp().localhost_ref(), field + ".seccomp.localhost_ref");
    default:
      return FieldError(field + ".seccomp.profile_type", "unknown type");
  }
}

}  // namespace

StatusOr<sandbox::SecurityContext> SecurityFromProto(const api::LinuxContainerSecurityContext& security,
                                                     const std::string& field) {
  HUSK_RETURN_IF_ERROR(CheckConfinement(security, field));
  if (absl::StartsWith(security.apparmor_profile(), "localhost/")) {
    return UnsupportedField(field + ".apparmor_profile", "the guest's kernel has no AppArmor");
  }
  sandbox::SecurityContext result;
  result.privileged = security.privileged();
  result.add_capabilities = FromProtoList(security.capabilities().add_capabilities());
  result.drop_capabilities = FromProtoList(security.capabilities().drop_capabilities());
  result.add_ambient_capabilities = FromProtoList(security.capabilities().add_ambient_capabilities());
  if (security.has_namespace_options()) {
    HUSK_ASSIGN_OR_RETURN(result.namespaces,
                          husk::cri::FromProto(security.namespace_options(), field + ".namespace_options"));
  }
  HUSK_ASSIGN_OR_RETURN(result.user, UserFromProto(security, field));
  HUSK_ASSIGN_OR_RETURN(result.seccomp, SeccompFromProto(security, field));
  result.readonly_root = security.readonly_rootfs();
  result.no_new_privileges = security.no_new_privs();
  // Callers of the CRI name the paths themselves: none means none. The defaults are for those without any context.
  result.masked_paths = FromProtoList(security.masked_paths());
  result.readonly_paths = FromProtoList(security.readonly_paths());
  return result;
}

void UserToProto(const sandbox::ResolvedUser& user, api::ContainerUser* out) {
  api::LinuxContainerUser* linux_user = out->mutable_linux();
  linux_user->set_uid(user.uid);
  linux_user->set_gid(user.gid);
  for (const std::uint32_t gid : user.supplemental_gids) linux_user->add_supplemental_groups(gid);
}

}  // namespace husk::cri
