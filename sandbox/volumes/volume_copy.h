// Copies files of the host into a volume of a guest, and one back.
#ifndef HUSK_SANDBOX_VOLUMES_VOLUME_COPY_H_
#define HUSK_SANDBOX_VOLUMES_VOLUME_COPY_H_

#include <string>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/volumes/host_tree.h"

namespace husk::sandbox {

// Makes the volume, which holds `before`, like `now`, which was read of `directory`. What is new is whole before a
// symlink directly in the volume is made to point to it, and what is gone is removed after that: whoever reads through
// the kubelet's ..data sees all of the old state or all of the new one. ABORTED if a file is gone meanwhile.
Status CopyTree(const Context& context, agent::AgentClient& client, const std::string& volume_id,
                const std::string& directory, const HostTree& before, const HostTree& now);

// Into a volume that is a single file.
Status CopyFile(const Context& context, agent::AgentClient& client, const std::string& volume_id,
                const std::string& path, const HostEntry& attributes);

// The volume's bytes, the first 64 KiB at most, into the file at `path`, which has to be there and is not followed if
// it is a symlink.
Status CopyFileBack(const Context& context, agent::AgentClient& client, const std::string& volume_id,
                    const std::string& path);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_VOLUMES_VOLUME_COPY_H_
