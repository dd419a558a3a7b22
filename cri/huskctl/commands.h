// huskctl's commands, but for those in streams/. Each prints to standard output and returns the process's exit code, or
// an error that main prints.
#ifndef HUSK_CRI_HUSKCTL_COMMANDS_H_
#define HUSK_CRI_HUSKCTL_COMMANDS_H_

#include <chrono>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "cri/huskctl/client.h"

namespace husk::huskctl {

struct RunOptions {
  std::string manifest;  // a path, "-" for standard input
  bool follow = false;   // prints the logs until every container has exited
  bool remove = false;   // afterwards; implies follow
};
StatusOr<int> Run(Client& client, const RunOptions& options);

struct ListOptions {
  bool all = false;  // pods that are not ready too
  bool json = false;
  bool quiet = false;       // ids only, one a line
  bool containers = false;  // with quiet: the containers' ids instead of the pods'
};
StatusOr<int> ListPods(Client& client, const ListOptions& options);
StatusOr<int> StopPodOrContainer(Client& client, const std::string& name, std::chrono::seconds grace);
// Stops those that run. With `force`, goes on with the others after a failure, and unknown names are no failure.
StatusOr<int> RemovePods(Client& client, const std::vector<std::string>& names, bool force);

StatusOr<int> Logs(Client& client, const std::string& container, bool follow);

// One line an event, until huskd or the user ends it.
StatusOr<int> Events(Client& client, bool json);

// What pods and their containers use now; `pod` empty: all. Takes two samples, a second apart.
StatusOr<int> Stats(Client& client, const std::string& pod, bool json);

// What pods' VMs have, shall have, and use, and what their containers use of their limits. Likewise.
StatusOr<int> Top(Client& client, const std::string& pod, bool json);

StatusOr<int> ListImages(Client& client, bool json);
StatusOr<int> Pull(Client& client, const std::string& image, const std::string& credentials);
StatusOr<int> RemoveImage(Client& client, const std::string& image);

StatusOr<int> Info(Client& client, bool json);
StatusOr<int> Version(Client& client);

// Works without huskd; `config_file` empty: the default one.
StatusOr<int> Check(const std::string& config_file, bool json);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_COMMANDS_H_
