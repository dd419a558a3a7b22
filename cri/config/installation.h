// Where the files that belong to huskd lie: beside it, in an installation or in a build tree.
#ifndef HUSK_CRI_CONFIG_INSTALLATION_H_
#define HUSK_CRI_CONFIG_INSTALLATION_H_

#include <string>

#include "agent/common/status.h"
#include "cri/config/config.h"

namespace husk::cri {

// The directory of the running executable.
StatusOr<std::string> ExecutableDirectory();

// Fills vm.launcher, vm.kernel and vm.initrd where they are empty: PREFIX/libexec/husk of an executable in PREFIX/bin;
// in a build tree the launcher beside it, and BUILD/guest. NOT_FOUND names the places that were looked at, and the
// remedy; what was configured must exist too.
Status CompleteInstallation(const std::string& executable_directory, Config* config);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONFIG_INSTALLATION_H_
