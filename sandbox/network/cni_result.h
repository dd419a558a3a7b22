// A plugin chain's result, in Husk's words.
#ifndef HUSK_SANDBOX_NETWORK_CNI_RESULT_H_
#define HUSK_SANDBOX_NETWORK_CNI_RESULT_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// The interfaces that sit in the namespace, `interface_name` first, with their addresses (IPv4 first); a result that
// lists no interfaces means `interface_name`. A route without a gateway gets its interface's, and on-link routes come
// first. MTU and MAC are what the result says, if it does. INTERNAL if the result contradicts itself or has no address.
StatusOr<NetworkResult> ConvertResult(const nlohmann::json& result, const std::string& namespace_path,
                                      const std::string& interface_name);

// Adds those of `routes` that the interface does not have yet, on-link routes first.
void AddRoutes(const std::vector<NetworkRoute>& routes, NetworkInterface& interface);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_CNI_RESULT_H_
