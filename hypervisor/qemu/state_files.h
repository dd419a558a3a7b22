// What lies in a VM's state directory: "identity" (husk-vm-launcher's), "qmp.sock", "agent.sock", "qemu.log" and the
// directories of shares (file_server.h).
#ifndef HUSK_HYPERVISOR_QEMU_STATE_FILES_H_
#define HUSK_HYPERVISOR_QEMU_STATE_FILES_H_

#include <string>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::hypervisor {

inline constexpr char kQmpSocket[] = "qmp.sock";
inline constexpr char kAgentSocket[] = "agent.sock";
inline constexpr char kLogFile[] = "qemu.log";

StatusOr<UniqueFd> OpenStateDirectory(const std::string& path);

// A listening unix socket in the directory, in the place of any that is there. Works for directories whose paths are
// longer than a socket address may be.
StatusOr<UniqueFd> ListenIn(int directory, const std::string& name);
// Connects to one. UNAVAILABLE if nobody listens; waits, within the context, for a listener that is busy.
StatusOr<UniqueFd> ConnectIn(const Context& context, int directory, const std::string& name);

// An empty log: the writing end that the program gets appends.
StatusOr<UniqueFd> CreateLog(int directory, const char* name = kLogFile);
StatusOr<UniqueFd> OpenLog(int directory, const char* name = kLogFile);

// All of the above and the identity, there or not. Not the shares'.
Status RemoveStateFiles(int directory);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_STATE_FILES_H_
