// A command in a container whose streams are this process's: exec and attach.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_REMOTE_COMMAND_H_
#define HUSK_CRI_HUSKCTL_STREAMS_REMOTE_COMMAND_H_

#include <unistd.h>

#include <chrono>
#include <string>

#include "agent/common/status.h"

namespace husk::huskctl {

struct RemoteCommandOptions {
  std::string url;                    // from the CRI
  std::string certificate_authority;  // a PEM file, for https; empty: the system's
  bool standard_input = false;
  bool tty = false;  // the remote side has a terminal: sizes are sent, and with standard_input `input` becomes raw
  bool attached =
      false;  // to what was there before: with a terminal it is made to redraw, and can be left by Ctrl-P Ctrl-Q
  // Descriptors of the caller's, which may be of any kind and stay open.
  int input = STDIN_FILENO;
  int output = STDOUT_FILENO;
  int error_output = STDERR_FILENO;
  std::chrono::milliseconds ping_interval = std::chrono::seconds(20);
};

struct RemoteCommandEnd {
  int exit_code = 0;
  bool detached = false;  // the user left; the command goes on
};

// Until the command ends or the user leaves. The terminal is as before when this returns, and also when a signal ends
// the process meanwhile (RawTerminal). Blocks; input is read on a thread of its own. Errors: why there are no streams,
// that the server is lost, or why the command could not run.
StatusOr<RemoteCommandEnd> RunRemoteCommand(const RemoteCommandOptions& options);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_REMOTE_COMMAND_H_
