// Configurations as JSON text, the form in which the store keeps them.
#ifndef HUSK_SANDBOX_STORE_JSON_CODEC_H_
#define HUSK_SANDBOX_STORE_JSON_CODEC_H_

#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "sandbox/network/network.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// Lossless: a string that is not UTF-8 becomes {"hex": "..."}. Reading is lenient, so that fields may come and go with
// versions: a field that is missing keeps its default, an unknown one is ignored; what is no such JSON is DATA_LOSS.
std::string ToJson(const PodConfig& config);
std::string ToJson(const ContainerConfig& config);
std::string ToJson(const LinuxResources& resources);
std::string ToJson(const ResolvedUser& user);
std::string ToJson(const NetworkResult& network);

StatusOr<PodConfig> PodConfigFromJson(std::string_view text);
StatusOr<ContainerConfig> ContainerConfigFromJson(std::string_view text);
StatusOr<LinuxResources> LinuxResourcesFromJson(std::string_view text);
StatusOr<ResolvedUser> ResolvedUserFromJson(std::string_view text);
StatusOr<NetworkResult> NetworkResultFromJson(std::string_view text);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_STORE_JSON_CODEC_H_
