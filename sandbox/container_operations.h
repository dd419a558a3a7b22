// The steps of a container's life.
#ifndef HUSK_SANDBOX_CONTAINER_OPERATIONS_H_
#define HUSK_SANDBOX_CONTAINER_OPERATIONS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/client_streams.h"
#include "sandbox/environment.h"
#include "sandbox/pod.h"
#include "sandbox/types.h"

namespace husk::sandbox {

// These four are called by the one who has the pod's turn, with a context that ends when the pod is stopped.

// The new container's id. On failure everything is undone.
StatusOr<std::string> MakeContainer(Environment& environment, const Context& context, Pod& pod,
                                    const ContainerConfig& config);
// OK if it runs already. FAILED_PRECONDITION if it cannot be started; it is EXITED then, with StartError.
Status StartContainerInPod(Environment& environment, const Context& context, Pod& pod, const std::string& id);
// Kills it if it runs. Repeatable.
Status RemoveContainerFromPod(Environment& environment, const Context& context, Pod& pod, const std::string& id);

// Changes its limits in the guest, then in the record. Repeatable. FAILED_PRECONDITION if it has exited.
Status UpdateContainerInPod(Environment& environment, const Context& context, Pod& pod, const std::string& id,
                            const LinuxResources& change);

// These four need no turn: they may take long, and other operations on the pod go on.

Status StopContainerInPod(const Context& context, Pod& pod, const std::string& id, std::chrono::nanoseconds grace);
StatusOr<ExecResult> ExecInContainer(const Context& context, Pod& pod, const std::string& id,
                                     const std::vector<std::string>& command, std::chrono::nanoseconds timeout);
StatusOr<std::int32_t> ExecWithClient(const Context& context, Pod& pod, const std::string& id,
                                      const ExecOptions& options, ClientStreams& streams);
Status AttachClient(const Context& context, Pod& pod, const std::string& id, const AttachOptions& options,
                    ClientStreams& streams);

// A log for the container: its file, or none if the configuration asks for none.
StatusOr<std::shared_ptr<ContainerOutput>> OpenOutput(const PodConfig& pod, const std::string& id,
                                                      const ContainerConfig& config, const LogCheckpoint& checkpoint);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_CONTAINER_OPERATIONS_H_
