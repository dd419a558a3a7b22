// The command line of exec, attach and port-forward.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_STREAM_COMMAND_LINE_H_
#define HUSK_CRI_HUSKCTL_STREAMS_STREAM_COMMAND_LINE_H_

#include <CLI/App.hpp>
#include <cstdint>
#include <functional>

#include "agent/common/status.h"
#include "cri/huskctl/client.h"
#include "cri/huskctl/streams/stream_commands.h"

namespace husk::huskctl {

struct StreamArguments {
  ExecOptions exec;
  StreamOptions attach;
  PortForwardCommandOptions port_forward;
};

// Adds the three to `app`. Parsing fills `arguments`, and sets `action` to what runs the one that was given; both must
// outlive the app.
void AddStreamCommands(CLI::App* app, StreamArguments* arguments, std::function<StatusOr<int>(Client&)>* action);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_STREAM_COMMAND_LINE_H_
