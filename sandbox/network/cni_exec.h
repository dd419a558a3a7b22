// Runs the plugins of a network: ADD along the chain, DEL back along it.
#ifndef HUSK_SANDBOX_NETWORK_CNI_EXEC_H_
#define HUSK_SANDBOX_NETWORK_CNI_EXEC_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/network/cni_config.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// One pod on one network: all that DEL needs to know of ADD.
struct CniAttachment {
  std::string container_id;
  std::string namespace_path;
  std::string interface_name;
  std::string arguments;  // CNI_ARGS
  CniConfigList network;
  nlohmann::json capability_arguments;  // capability name to value, for the plugins that have it
  nlohmann::json result;                // null until ADD is through
};

// What the plugins are told of a pod. INVALID_ARGUMENT if a name cannot be part of CNI_ARGS.
StatusOr<CniAttachment> NewAttachment(const NetworkRequest& request, const std::string& namespace_path,
                                      CniConfigList network);

// The plugin's path in the first directory that has it. NOT_FOUND says where it was looked for.
StatusOr<std::string> FindPlugin(const std::vector<std::string>& directories, const std::string& type);

// The result of the last plugin. On failure of one those before it keep what they did: call DeleteNetwork. Errors name
// the plugin and the configuration's file. A plugin may print 4 MiB and run for two minutes, or until the context ends.
StatusOr<nlohmann::json> AddNetwork(const Context& context, const std::vector<std::string>& directories,
                                    const CniAttachment& attachment);

// Every plugin gets its DEL, also after one has failed; the first failure is returned.
Status DeleteNetwork(const Context& context, const std::vector<std::string>& directories,
                     const CniAttachment& attachment);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_CNI_EXEC_H_
