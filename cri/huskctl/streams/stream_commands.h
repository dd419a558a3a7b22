// exec, attach and port-forward: the commands that are clients of huskd's streaming server.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_STREAM_COMMANDS_H_
#define HUSK_CRI_HUSKCTL_STREAMS_STREAM_COMMANDS_H_

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "cri/huskctl/client.h"
#include "cri/huskctl/streams/port_mapping.h"

namespace husk::huskctl {

struct StreamOptions {
  std::string target;  // a container or a pod: id, name, or a prefix of the id
  bool standard_input = false;
  bool tty = false;
  std::string certificate_authority;  // a PEM file; empty: the system's
};

struct ExecOptions : StreamOptions {
  std::vector<std::string> command;
  // With it the command goes by ExecSync, which kills it in the guest when the time is over, and has neither input nor
  // terminal.
  std::optional<std::chrono::seconds> timeout;
};
// The command's exit code.
StatusOr<int> Exec(Client& client, const ExecOptions& options);

// The container's exit code if it ended meanwhile, 0 if the user left it.
StatusOr<int> Attach(Client& client, const StreamOptions& options);

struct PortForwardCommandOptions {
  std::string pod;
  std::vector<std::string> ports;
  std::vector<std::string> addresses;  // where it listens
  std::string certificate_authority;
};
// Until a signal ends the process.
StatusOr<int> PortForward(Client& client, const PortForwardCommandOptions& options);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_STREAM_COMMANDS_H_
