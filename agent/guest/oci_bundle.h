// The OCI configuration as huskd sends it, completed with what only the guest knows.
#ifndef HUSK_AGENT_GUEST_OCI_BUNDLE_H_
#define HUSK_AGENT_GUEST_OCI_BUNDLE_H_

#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "agent/guest/devices.h"
#include "agent/guest/user_lookup.h"

namespace husk::agent {

struct BundleFacts {
  std::string root_path;
  bool readonly_root = false;
  bool terminal = false;
  std::string cgroups_path;  // replaces linux.cgroupsPath
  ResolvedUser user;
  // A volume's place in the guest, and in the container.
  struct Bind {
    std::string source;
    std::string destination;
    bool read_only = false;
    std::vector<std::string> flags;  // more of the mount's options
  };
  std::vector<Bind> volumes;
  std::vector<DeviceNode> devices;  // beside those of the configuration
  // Where the pod's files lie in the guest: resolv.conf, hosts, hostname and the directory shm. Bound over the
  // container's unless the configuration mounts something there.
  std::string pod_files;
  // Joined instead of one of its own; empty: as the configuration says.
  std::string pid_namespace;
};

// The configuration with BundleFacts filled in. INVALID_ARGUMENT if it is not a JSON object of the OCI's shape, or a
// destination is not an absolute path, or is "/".
StatusOr<std::string> CompleteConfig(std::string_view oci_config_json, const BundleFacts& facts);

// The process.json of an exec: the container's own process with other arguments (any bytes but NUL; what is not UTF-8
// cannot be said in JSON and is refused) and terminal.
StatusOr<std::string> ExecProcess(std::string_view complete_config_json, const std::vector<std::string>& arguments,
                                  bool terminal);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_OCI_BUNDLE_H_
