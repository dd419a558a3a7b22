#include "cri/huskd/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"

namespace husk::cri {

StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments) {
  CommandLine result;
  CLI::App app("A Kubernetes CRI server that gives every pod its own QEMU virtual machine.", "huskd");
  app.add_option("--config", result.config_file,
                 absl::StrCat("The configuration file (", kDefaultConfigFile, " if it exists)"))
      ->type_name("FILE");
  app.add_option("--root", result.root, "Images, state that survives a reboot")->type_name("DIR");
  app.add_option("--state", result.state, "Sockets and namespaces of running pods")->type_name("DIR");
  app.add_option("--listen", result.listen, "The CRI's socket")->type_name("unix:///PATH");
  app.add_option("--log-level", result.log_level, "How much is logged")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error"}));
  app.add_flag("--check-config", result.check_config, "Print the effective configuration, or what is wrong with it");
  app.add_flag("--list-fault-points", result.list_fault_points, "Print the names that HUSK_FAULT_POINT may have");
  app.set_version_flag("--version", "huskd " HUSK_VERSION);
  try {
    // CLI11 takes the arguments from the back.
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    result.print = app.help();
  } catch (const CLI::CallForVersion& version) {
    result.print = absl::StrCat(version.what(), "\n");
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(absl::StrCat(error.what(), " (huskd --help shows the options)"));
  }
  return result;
}

StatusOr<Config> EffectiveConfig(const CommandLine& command_line) {
  HUSK_ASSIGN_OR_RETURN(Config config, LoadConfig(command_line.config_file.value_or(kDefaultConfigFile),
                                                  command_line.config_file.has_value()));
  const auto directory = [](const char* option, const std::optional<std::string>& given,
                            std::string* target) -> Status {
    if (!given) return absl::OkStatus();
    if (given->empty() || given->front() != '/') {
      return absl::InvalidArgumentError(absl::StrCat(option, ": expected an absolute path, not \"", *given, "\""));
    }
    *target = *given;
    return absl::OkStatus();
  };
  HUSK_RETURN_IF_ERROR(directory("--root", command_line.root, &config.root));
  HUSK_RETURN_IF_ERROR(directory("--state", command_line.state, &config.state));
  if (command_line.listen) config.listen = *command_line.listen;
  if (command_line.log_level) config.log_level = *command_line.log_level;
  HUSK_RETURN_IF_ERROR(CheckConfig(config));
  return config;
}

}  // namespace husk::cri
