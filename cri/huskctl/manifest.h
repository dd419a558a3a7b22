// A Kubernetes Pod manifest as CRI messages, the way a kubelet would make them, as far as huskctl knows the fields.
#ifndef HUSK_CRI_HUSKCTL_MANIFEST_H_
#define HUSK_CRI_HUSKCTL_MANIFEST_H_

#include <string>
#include <vector>

#include "agent/common/status.h"
#include "cri/proto/api.pb.h"

namespace husk::huskctl {

struct ManifestContainer {
  ::runtime::v1::ContainerConfig config;
  bool always_pull = false;
  bool never_pull = false;
};

struct Manifest {
  ::runtime::v1::PodSandboxConfig pod;
  std::vector<ManifestContainer> containers;
  // "FILE:LINE:COLUMN: spec.nodeName is ignored"
  std::vector<std::string> warnings;
};

// `uid` stands for metadata.uid where the manifest has none, `log_directory` is where the pod's directory of logs will
// be. Errors are INVALID_ARGUMENT with file, line and column. What would change the pod and is not supported is an
// error; other unknown fields are warnings.
StatusOr<Manifest> ParseManifest(const std::string& text, const std::string& name, const std::string& uid,
                                 const std::string& log_directory);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_MANIFEST_H_
