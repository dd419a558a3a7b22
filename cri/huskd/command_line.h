// huskd's command line.
#ifndef HUSK_CRI_HUSKD_COMMAND_LINE_H_
#define HUSK_CRI_HUSKD_COMMAND_LINE_H_

#include <optional>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "cri/config/config.h"

namespace husk::cri {

struct CommandLine {
  std::optional<std::string> config_file;  // absent: the default one, if it exists
  std::optional<std::string> root;
  std::optional<std::string> state;
  std::optional<std::string> listen;
  std::optional<std::string> log_level;
  bool check_config = false;
  bool list_fault_points = false;
  // --help or --version: print this and exit with success.
  std::optional<std::string> print;
};

// `arguments` without the program's name. INVALID_ARGUMENT in words for people.
StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments);

// The configuration that `command_line` asks for, checked.
StatusOr<Config> EffectiveConfig(const CommandLine& command_line);

}  // namespace husk::cri

#endif  // HUSK_CRI_HUSKD_COMMAND_LINE_H_
