// JSON of the OCI's runtime specification as it comes from huskd.
#ifndef HUSK_AGENT_GUEST_OCI_JSON_H_
#define HUSK_AGENT_GUEST_OCI_JSON_H_

#include <nlohmann/json.hpp>
#include <string_view>

#include "agent/common/status.h"

namespace husk::agent {

// INVALID_ARGUMENT that names `field` if it is no JSON object, larger than 3 MiB or deeper than 64.
StatusOr<nlohmann::json> ParseOciJson(std::string_view text, std::string_view field);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_OCI_JSON_H_
