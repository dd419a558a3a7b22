// CNI network configurations: the lists of plugins that the administrator wrote.
#ifndef HUSK_SANDBOX_NETWORK_CNI_CONFIG_H_
#define HUSK_SANDBOX_NETWORK_CNI_CONFIG_H_

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/common/status.h"

namespace husk::sandbox {

struct CniPlugin {
  std::string type;       // the plugin's file name
  nlohmann::json config;  // as written
};

struct CniConfigList {
  std::string name;
  std::string version;  // of the CNI specification, 0.3.0 to 1.1.0
  std::string source;   // the file, for messages
  std::vector<CniPlugin> plugins;
};

// The text of a .conflist, and that of a .conf or .json with a single plugin. INVALID_ARGUMENT says what is wrong.
StatusOr<CniConfigList> ParseConfigList(const std::string& text, const std::string& source,
                                        std::size_t maximum_depth = 64);
StatusOr<CniConfigList> ParseSingleConfig(const std::string& text, const std::string& source);

// The first valid file of a directory in the order of names, as libcni's users choose it. NOT_FOUND if there is no
// such file (or no directory); INVALID_ARGUMENT if there are files and none is valid, with each one's fault.
StatusOr<CniConfigList> LoadConfigList(const std::string& directory);

// In the form of a .conflist.
nlohmann::json ToJson(const CniConfigList& list);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_CNI_CONFIG_H_
