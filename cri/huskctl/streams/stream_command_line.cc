#include "cri/huskctl/streams/stream_command_line.h"

#include <CLI/CLI.hpp>
#include <string>

namespace husk::huskctl {
namespace {

using Action = std::function<StatusOr<int>(Client&)>;

void AddCertificateAuthority(CLI::App* command, std::string* file) {
  command
      ->add_option("--streaming-ca", *file, "The CA of the streaming server's certificate; the system's if not given")
      ->envname("HUSK_STREAMING_CA")
      ->type_name("FILE");
}

void AddStreams(CLI::App* command, StreamOptions* options) {
  command->add_option("container", options->target, "Id, name, pod/name, or a prefix of the id")->required();
  command->add_flag("-i,--stdin", options->standard_input, "Pass standard input on");
  command->add_flag("-t,--tty", options->tty, "With a terminal, whose size follows this one's");
  AddCertificateAuthority(command, &options->certificate_authority);
}

void AddExec(CLI::App* app, ExecOptions* options, Action* action) {
  CLI::App* exec = app->add_subcommand("exec", "Run a command in a container");
  exec->footer("The exit code is the command's; 125 if it could not run. Its output comes as it is written.");
  AddStreams(exec, options);
  exec->add_option("command", options->command, "The command, after --")->required();
  exec->add_option_function<std::int64_t>(
          "--timeout", [options](const std::int64_t& seconds) { options->timeout = std::chrono::seconds(seconds); },
          "Kill the command after so many seconds; its output comes when it ends")
      ->check(CLI::PositiveNumber)
      ->type_name("SECONDS")
      ->excludes("-i")
      ->excludes("-t");
  exec->callback([=] { *action = [options](Client& client) { return Exec(client, *options); }; });
}

void AddAttach(CLI::App* app, StreamOptions* options, Action* action) {
  CLI::App* attach = app->add_subcommand("attach", "Join a container's streams");
  attach->footer(
      "-t if, and only if, the container has a terminal; Ctrl-P Ctrl-Q then leaves it with -i, and it runs on.\n"
      "The exit code is the container's if it ended, 0 after Ctrl-P Ctrl-Q.");
  AddStreams(attach, options);
  attach->callback([=] { *action = [options](Client& client) { return Attach(client, *options); }; });
}

void AddPortForward(CLI::App* app, PortForwardCommandOptions* options, Action* action) {
  CLI::App* forward = app->add_subcommand("port-forward", "Make ports of a pod reachable here, until Ctrl-C");
  forward->add_option("pod", options->pod, "Id, name, or a prefix of the id")->required();
  forward->add_option("ports", options->ports, "[LOCAL:]REMOTE; a LOCAL that is empty or 0 means any free port")
      ->required();
  forward
      ->add_option(
          "--address", options->addresses,
          "Where to listen, with commas between them; localhost (127.0.0.1, and ::1 where it works) if not given")
      ->delimiter(',')
      ->type_name("ADDRESS")
      ->allow_extra_args(false);
  AddCertificateAuthority(forward, &options->certificate_authority);
  forward->callback([=] { *action = [options](Client& client) { return PortForward(client, *options); }; });
}

}  // namespace

void AddStreamCommands(CLI::App* app, StreamArguments* arguments, Action* action) {
  AddExec(app, &arguments->exec, action);
  AddAttach(app, &arguments->attach, action);
  AddPortForward(app, &arguments->port_forward, action);
}

}  // namespace husk::huskctl
