// huskd: the daemon on a node.
#include <cstdio>
#include <string>
#include <vector>

#include "agent/common/fault_point.h"
#include "cri/config/installation.h"
#include "cri/huskd/command_line.h"
#include "cri/huskd/daemon.h"
#include "cri/huskd/logging.h"
#include "cri/huskd/shutdown_signals.h"

namespace {

constexpr int kFailed = 1;
constexpr int kBadConfiguration = 2;

int Fail(const husk::Status& status, int code) {
  const std::string message(status.message());
  std::fprintf(stderr, "huskd: %s\n", message.c_str());
  return code;
}

int Serve(husk::cri::Config config) {
  const auto directory = husk::cri::ExecutableDirectory();
  if (!directory.ok()) return Fail(directory.status(), kFailed);
  const husk::Status complete = husk::cri::CompleteInstallation(*directory, &config);
  if (!complete.ok()) return Fail(complete, kFailed);
  // Before the first thread, which every later one inherits the signal mask from.
  const auto signals = husk::cri::ShutdownSignals::Install();
  if (!signals.ok()) return Fail(signals.status(), kFailed);
  const husk::Status served = husk::cri::RunDaemon(config, (*signals)->token());
  return served.ok() ? 0 : Fail(served, kFailed);
}

}  // namespace

int main(int argc, char** argv) {
  const auto command_line = husk::cri::ParseCommandLine(std::vector<std::string>(argv + 1, argv + argc));
  if (!command_line.ok()) return Fail(command_line.status(), kBadConfiguration);
  if (command_line->print) {
    std::fputs(command_line->print->c_str(), stdout);
    return 0;
  }
  if (command_line->list_fault_points) {
    for (const std::string& name : husk::FaultPoints()) std::printf("%s\n", name.c_str());
    return 0;
  }
  const auto config = husk::cri::EffectiveConfig(*command_line);
  if (!config.ok()) return Fail(config.status(), kBadConfiguration);
  if (command_line->check_config) {
    std::fputs(husk::cri::ConfigToYaml(*config).c_str(), stdout);
    return 0;
  }
  husk::cri::StartLogging(config->log_level);
  return Serve(*config);
}
