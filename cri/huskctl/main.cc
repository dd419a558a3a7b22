// huskctl: a CRI client for people without a kubelet.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "cri/huskctl/commands.h"
#include "cri/huskctl/streams/stream_command_line.h"

namespace husk::huskctl {
namespace {

constexpr int kFailed = 125;  // so that a container's own exit codes can be told from huskctl's

struct Arguments {
  std::string endpoint = kDefaultEndpoint;
  std::string output = "text";
  std::string config_file;
  std::string credentials;
  std::string name;
  std::vector<std::string> names;
  StreamArguments streams;
  std::int64_t seconds = 0;
  bool all = false;
  bool follow = false;
  bool force = false;
  bool remove = false;
  bool quiet = false;
  bool containers = false;
  [[nodiscard]] bool json() const { return output == "json"; }
};

using Action = std::function<StatusOr<int>(Client&)>;

void AddOutput(CLI::App* command, Arguments* arguments) {
  command->add_option("-o,--output", arguments->output, "text or json")->check(CLI::IsMember({"text", "json"}));
}

void AddPodCommands(CLI::App* app, Arguments* arguments, Action* action) {
  CLI::App* run = app->add_subcommand("run", "Run a pod from a Kubernetes manifest");
  run->add_option("manifest", arguments->name, "A file, or - for standard input")->required();
  run->add_flag("-f,--follow", arguments->follow, "Print the logs until all containers have exited");
  run->add_flag("--rm", arguments->remove, "Follow, then remove the pod");
  run->callback([=] {
    *action = [arguments](Client& client) {
      return Run(client, {.manifest = arguments->name, .follow = arguments->follow, .remove = arguments->remove});
    };
  });
  CLI::App* ps = app->add_subcommand("ps", "List pods and containers");
  ps->add_flag("-a,--all", arguments->all, "Pods that are not ready too");
  ps->add_flag("-q,--quiet", arguments->quiet, "Ids of pods only");
  ps->add_flag("--containers", arguments->containers, "With --quiet: ids of containers");
  AddOutput(ps, arguments);
  ps->callback([=] {
    *action = [arguments](Client& client) {
      return ListPods(client, {.all = arguments->all,
                               .json = arguments->json(),
                               .quiet = arguments->quiet,
                               .containers = arguments->containers});
    };
  });
  CLI::App* stop = app->add_subcommand("stop", "Stop a pod or a container");
  stop->add_option("name", arguments->name, "A pod or a container: id, name, or a prefix of the id")->required();
  arguments->seconds = 10;
  stop->add_option("-t,--time", arguments->seconds, "Seconds before a container is killed")
      ->check(CLI::NonNegativeNumber);
  stop->callback([=] {
    *action = [arguments](Client& client) {
      return StopPodOrContainer(client, arguments->name, std::chrono::seconds(arguments->seconds));
    };
  });
  CLI::App* rm = app->add_subcommand("rm", "Stop and remove pods");
  rm->add_option("pods", arguments->names, "Ids, names, or \"all\"")->required();
  rm->add_flag("-f,--force", arguments->force, "Go on when one fails, or is not there");
  rm->callback([=] {
    *action = [arguments](Client& client) { return RemovePods(client, arguments->names, arguments->force); };
  });
}

void AddContainerCommands(CLI::App* app, Arguments* arguments, Action* action) {
  CLI::App* logs = app->add_subcommand("logs", "Print a container's log");
  logs->add_option("container", arguments->name, "Id, name, pod/name, or a prefix of the id")->required();
  logs->add_flag("-f,--follow", arguments->follow, "Go on until the container exits");
  logs->callback(
      [=] { *action = [arguments](Client& client) { return Logs(client, arguments->name, arguments->follow); }; });
}

void AddEventsCommand(CLI::App* app, Arguments* arguments, Action* action) {
  CLI::App* events = app->add_subcommand("events", "Print what happens to pods and containers, as it happens");
  AddOutput(events, arguments);
  events->callback([=] { *action = [arguments](Client& client) { return Events(client, arguments->json()); }; });
}

void AddStatsCommand(CLI::App* app, Arguments* arguments, Action* action) {
  CLI::App* stats = app->add_subcommand("stats", "Show what pods and their containers use");
  stats->add_option("pod", arguments->name, "Id, name, or a prefix of the id; all if not given");
  AddOutput(stats, arguments);
  stats->callback(
      [=] { *action = [arguments](Client& client) { return Stats(client, arguments->name, arguments->json()); }; });
}

void AddTopCommand(CLI::App* app, Arguments* arguments, Action* action) {
  CLI::App* top = app->add_subcommand("top", "Show how large pods' VMs are and shall be, and what is used of it");
  top->add_option("pod", arguments->name, "Id, name, or a prefix of the id; all if not given");
  AddOutput(top, arguments);
  top->callback(
      [=] { *action = [arguments](Client& client) { return Top(client, arguments->name, arguments->json()); }; });
}

void AddImageCommands(CLI::App* app, Arguments* arguments, Action* action) {
  CLI::App* images = app->add_subcommand("images", "List images");
  AddOutput(images, arguments);
  images->callback([=] { *action = [arguments](Client& client) { return ListImages(client, arguments->json()); }; });
  CLI::App* pull = app->add_subcommand("pull", "Pull an image");
  pull->add_option("image", arguments->name, "[HOST/]REPOSITORY[:TAG][@DIGEST]")->required();
  pull->add_option("--credentials", arguments->credentials, "USER:PASSWORD of the registry")
      ->envname("HUSK_CREDENTIALS");
  pull->callback(
      [=] { *action = [arguments](Client& client) { return Pull(client, arguments->name, arguments->credentials); }; });
  CLI::App* rmi = app->add_subcommand("rmi", "Remove an image");
  rmi->add_option("image", arguments->name, "A tag, a digest or an id")->required();
  rmi->callback([=] { *action = [arguments](Client& client) { return RemoveImage(client, arguments->name); }; });
}

int Finish(const StatusOr<int>& result) {
  if (result.ok()) return *result;
  const std::string message(result.status().message());
  std::fprintf(stderr, "huskctl: %s\n", message.c_str());
  return kFailed;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  Action action;
  CLI::App app("Runs pods on a Husk node, without a kubelet.", "huskctl");
  app.require_subcommand(1);
  app.add_option("--endpoint", arguments.endpoint, "huskd's socket")
      ->envname("HUSK_ENDPOINT")
      ->type_name("unix:///PATH")
      ->capture_default_str();
  AddPodCommands(&app, &arguments, &action);
  AddContainerCommands(&app, &arguments, &action);
  AddStreamCommands(&app, &arguments.streams, &action);
  AddEventsCommand(&app, &arguments, &action);
  AddStatsCommand(&app, &arguments, &action);
  AddTopCommand(&app, &arguments, &action);
  AddImageCommands(&app, &arguments, &action);
  CLI::App* info = app.add_subcommand("info", "Show what huskd says of itself");
  AddOutput(info, &arguments);
  info->callback([&] { action = [&](Client& client) { return Info(client, arguments.json()); }; });
  CLI::App* version = app.add_subcommand("version", "Print the versions of huskctl and huskd");
  version->callback([&] { action = Version; });
  CLI::App* check = app.add_subcommand("check", "Look whether this host is ready; works without huskd");
  check->add_option("--config", arguments.config_file, "huskd's configuration file");
  AddOutput(check, &arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : 2;
  }
  if (*check) return Finish(Check(arguments.config_file, arguments.json()));
  const auto client = Client::Connect(arguments.endpoint);
  if (!client.ok()) return Finish(client.status());
  return Finish(action(**client));
}

}  // namespace
}  // namespace husk::huskctl

int main(int argc, char** argv) {
  return husk::huskctl::Main(argc, argv);
}
