// The QMP conversations that plug shared directories in and take them away. Callers take turns.
#ifndef HUSK_HYPERVISOR_QEMU_SHARE_OPERATIONS_H_
#define HUSK_HYPERVISOR_QEMU_SHARE_OPERATIONS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "hypervisor/qemu/qmp_client.h"

namespace husk::hypervisor {

// The names of a share's device and character device, and back. They say where the share is, so that a later huskd can
// tell.
std::string ShareName(std::uint32_t port, const std::string& tag);
// False for other names.
bool ParseShareName(std::string_view name, std::uint32_t& port, std::string& tag);

// By tag: the port.
using SharePorts = std::map<std::string, std::uint32_t>;
StatusOr<SharePorts> AttachedShares(const Context& context, QmpClient& qmp);

// `connection`: to the file server. After a failure some of it may exist: RemoveShare, with the server gone.
Status AddShare(const Context& context, QmpClient& qmp, std::uint32_t port, const std::string& tag,
                UniqueFd connection);
// Waits until the guest has let go of the device.
Status RemoveShare(const Context& context, QmpClient& qmp, std::uint32_t port, const std::string& tag);
// What an AddShare left whose huskd died.
Status RemoveHalfAddedShares(const Context& context, QmpClient& qmp);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_SHARE_OPERATIONS_H_
