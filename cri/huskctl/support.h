// What several commands share: finding things by name, pulling with visible progress, tables.
#ifndef HUSK_CRI_HUSKCTL_SUPPORT_H_
#define HUSK_CRI_HUSKCTL_SUPPORT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "cri/huskctl/client.h"

namespace husk::huskctl {

// By id, unique prefix of an id, name, or namespace/name. NOT_FOUND lists what there is.
StatusOr<api::PodSandbox> FindPod(Client& client, const std::string& name);
// By id, unique prefix of an id, name, or pod/name; the newest attempt of a name.
StatusOr<api::Container> FindContainer(Client& client, const std::string& name);
// The same, among those.
StatusOr<api::Container> ChooseContainer(const api::ListContainersResponse& containers, const std::string& name);

// Pulls and shows how far it is; the image's id.
StatusOr<std::string> PullWithProgress(Client& client, const std::string& image, const api::AuthConfig& auth);

// What huskd says of itself: its root directory among others. A JSON object.
StatusOr<std::string> InformationOf(Client& client, const std::string& key);

// Columns as wide as their widest cell.
std::string Table(const std::vector<std::vector<std::string>>& rows);
// "3 min" since `nanoseconds` after 1970.
std::string Age(std::int64_t nanoseconds);
std::string ShortId(std::string_view id);
std::string ReadableBytes(std::uint64_t bytes);
// "running", "exited", ...
std::string StateName(api::ContainerState state);
std::string StateName(api::PodSandboxState state);

// The pod's annotation that names the log directory which huskctl made, and rm deletes.
inline constexpr char kLogDirectoryAnnotation[] = "huskctl/log-directory";

// Stops, removes, and deletes the logs if huskctl made them.
Status RemovePod(Client& client, const std::string& id);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_SUPPORT_H_
