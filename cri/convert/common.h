// What the conversions of pods, containers and images share. Only files below cri/ see CRI messages.
#ifndef HUSK_CRI_CONVERT_COMMON_H_
#define HUSK_CRI_CONVERT_COMMON_H_

#include <google/protobuf/map.h>
#include <google/protobuf/repeated_field.h>

#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "cri/proto/api.pb.h"
#include "sandbox/types.h"

namespace husk::cri {

namespace api = ::runtime::v1;

// INVALID_ARGUMENT "<field>: <why>". Both may hold what the caller wrote: it is cut, and made printable.
Status FieldError(std::string_view field, std::string_view why);
// UNIMPLEMENTED "<field>: not supported by this version of Husk": what would be unsafe or visible to ignore.
Status UnsupportedField(std::string_view field);
// UNIMPLEMENTED "<field>: <why>".
Status UnsupportedField(std::string_view field, std::string_view why);

// A name that ends up in logs, CNI arguments and listings: not empty, printable ASCII without a slash, as Kubernetes'
// own are, at most 512 bytes. Others look like names that they are not.
Status CheckName(std::string_view field, const std::string& name);

sandbox::StringMap FromProtoMap(const google::protobuf::Map<std::string, std::string>& map);
void ToProtoMap(const sandbox::StringMap& map, google::protobuf::Map<std::string, std::string>* out);
std::vector<std::string> FromProtoList(const google::protobuf::RepeatedPtrField<std::string>& list);

// `field` is what errors call the message.
StatusOr<sandbox::NamespaceOptions> FromProto(const api::NamespaceOption& options, const std::string& field);
void ToProto(const sandbox::NamespaceOptions& options, api::NamespaceOption* out);

// Confinement that a pod may ask for and that a guest does not give: its kernel has neither SELinux nor AppArmor, so
// labels and profiles by name are refused. A RuntimeDefault AppArmor profile means the runtime's own, which is none.
template <typename SecurityContext>
Status CheckConfinement(const SecurityContext& context, const std::string& field) {
  if (context.has_selinux_options()) {
    const api::SELinuxOption& options = context.selinux_options();
    if (!options.user().empty() || !options.role().empty() || !options.type().empty() || !options.level().empty()) {
      return UnsupportedField(field + ".selinux_options", "the guest's kernel has no SELinux");
    }
  }
  if (context.apparmor().profile_type() == api::SecurityProfile::Localhost) {
    return UnsupportedField(field + ".apparmor", "the guest's kernel has no AppArmor");
  }
  return absl::OkStatus();
}

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_COMMON_H_
