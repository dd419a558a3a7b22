// The file servers of a VM: one virtiofsd per directory that the guest shares with the host. The files of each lie in a
// directory "share-TAG" of the VM's state directory: "identity" (husk-vm-launcher's), "virtiofsd.log", and "source",
// a symlink whose target is the path that messages name.
#ifndef HUSK_HYPERVISOR_QEMU_FILE_SERVER_H_
#define HUSK_HYPERVISOR_QEMU_FILE_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/qemu/io_thread.h"
#include "hypervisor/qemu/launcher/plan.h"
#include "hypervisor/qemu/process.h"

namespace husk::hypervisor {

struct FileServerOptions {
  std::string launcher_binary;
  std::string virtiofsd_binary;
  std::vector<launcher::Bind> runtime_files;  // none: there is no virtiofsd on this host
};

struct FileServer {
  std::shared_ptr<VmProcess> process;
  UniqueFd connection;  // for QEMU; the server ends when it is closed
};

// 1 to 36 letters, digits, "-" and "_": what virtiofs takes, and a file name may be.
bool IsShareTag(const std::string& tag);

// Starts one; it is huskd's child, and outlives it. After a failure some of it may be left: RemoveFileServer.
StatusOr<FileServer> StartFileServer(const Context& context, IoThread& io_thread, const FileServerOptions& options,
                                     const SharedDirectory& share, int state_directory);
// One that an earlier process started. NOT_FOUND if it does not live.
StatusOr<std::shared_ptr<VmProcess>> AdoptFileServer(IoThread& io_thread, int state_directory, const std::string& tag);
// The process that serves, in namespaces of its own; its root is the directory once it has answered the guest.
StatusOr<pid_t> ServingProcess(const ProcessIdentity& server);
// Kills it if it lives, and removes its files. OK if there is none.
Status RemoveFileServer(const Context& context, int state_directory, const std::string& tag);

// Of all that have a directory.
StatusOr<std::vector<std::string>> FileServerTags(int state_directory);
// All of them, at the end of the VM.
Status RemoveFileServers(const Context& context, int state_directory);
// The path of the directory that is served, or the tag if that is lost.
std::string ServedPath(int state_directory, const std::string& tag);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_FILE_SERVER_H_
